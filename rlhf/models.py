"""Load, adapt and save the four roles: policy, reference, reward model, value model.

Everything that knows how Transformers lays a model out is here: where the backbone and the scalar head are, what a
usable folder holds, which settings of a model would change our sampling behind our back.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import functools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlhf.config import DType, FreezeConfig, LoraConfig, ModelConfig, Quantization
from rlhf.data.layouts import LAYOUTS
from rlhf.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf.adapters import Adapter

    ModelT = TypeVar("ModelT", bound=nn.Module)

BUILTIN_PREFIX = "builtin:"
# Tokens that vocabularies reserve for padding without declaring them, and the next best that no sequence ends with.
_PAD_CANDIDATES = ("<pad>", "[PAD]", "<|padding|>", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "Ā")
# Rows and columns of a batch are rounded up to these, so it has a multiple of 64 tokens: oneDNN builds a kernel for
# each new shape, and without rounding nearly every shape is new.
ROW_MULTIPLE = 8
WIDTH_MULTIPLE = 8
# Padding worth adding to save a forward pass: this many tokens, or this share of the batch.
PADDING_TOKENS = 64
PADDING_SHARE = 0.05
NF4_BLOCK = 64  # weights that share a scale
_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")


def resolve_model_path(path: str) -> str:
    """The folder or hub id that `path` names; a local folder is checked to hold a config and all its weights.

    "builtin:sandbox-m" names a folder inside this package. What is neither builtin nor on disk and looks like a hub id
    ("gpt2", "org/name") is returned as it is. Raises UserError otherwise.
    """
    if path.startswith(BUILTIN_PREFIX):
        root = Path(__file__).parent / "sandbox" / "models"
        name = path.removeprefix(BUILTIN_PREFIX)
        folder = root / name
        if not folder.is_dir():
            names = ", ".join(f"builtin:{p.name}" for p in sorted(root.glob("*")) if p.is_dir()) or "none"
            raise UserError(f"There is no {path}; this package has {names}. Change model.path.")
        _check_model_folder(folder)
        return str(folder)
    folder = Path(path).expanduser()
    if folder.is_dir():
        _check_model_folder(folder)
        return str(folder)
    looks_like_hub_id = path.count("/") <= 1 and not path.startswith((".", "/", "~")) and not path.endswith("/")
    if path == "" or not looks_like_hub_id or folder.exists():
        raise UserError(f"{path!r} is no model folder; set model.path to a folder with config.json, or to a hub id.")
    return path


def _check_model_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        what = "only LoRA adapters; merge them into their base model first" if adapter else "no config.json"
        raise UserError(f"The model folder {folder} holds {what}; point model.path at a whole model.")
    for index in sorted(folder.glob("*.index.json")):
        shards = set(json.loads(index.read_text())["weight_map"].values())
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise UserError(f"The model folder {folder} lacks {missing[0]}, which {index.name} names; copy it again.")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"The model folder {folder} has a config.json but no weights; it needs model.safetensors (or another "
            "*.safetensors). Point the setting that names it at a finished model."
        )


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with an end token, a pad token (the end token where it has none) and left padding.

    Raises UserError when there is none to load, or when it has no end-of-sequence token: a response could never end.
    """
    from transformers import AutoTokenizer

    resolved = resolve_model_path(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolved, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(f"No tokenizer loads from {path}: {_reason(error)}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"The tokenizer of {path} has no end-of-sequence token, so a response could not end; set eos_token in its "
            "tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def torch_dtype(dtype: DType) -> torch.dtype:
    import torch

    return {DType.float32: torch.float32, DType.bfloat16: torch.bfloat16, DType.float16: torch.float16}[dtype]


def load_causal_lm(
    path: str,
    config: ModelConfig,
    *,
    dtype: torch.dtype | None = None,
    quantization: Quantization = Quantization.none,
) -> PreTrainedModel:
    """A causal language model whose own sampling settings are off and whose pad and end ids are its tokenizer's.

    `dtype` overrides `config.dtype`; `quantization` is given by who will put adapters on the model, as its weights can
    no longer be trained. Raises UserError when the folder is no model or its vocabulary is too small.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = _load(AutoModelForCausalLM, path, config, dtype, quantization)
    tokenizer = load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    _check_vocabulary(model, tokenizer, path)
    _set_token_ids(model, tokenizer, pad_token_id=tokenizer.pad_token_id)
    # A hub model ships temperature, top-k and forbidden tokens of its own; PPO's log-probs assume plain sampling.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def load_reward_model(
    path: str,
    config: ModelConfig,
    *,
    dtype: torch.dtype | None = None,
    quantization: Quantization = Quantization.none,
) -> PreTrainedModel:
    """A sequence classifier with one score; from a causal LM's folder its head starts at zero.

    The pad id is one that no scored sequence ends with, because `AutoModelForSequenceClassification` finds the last
    token by looking for padding: with pad = end token it would read the score one token early.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model, info = _load(
        AutoModelForSequenceClassification, path, config, dtype, quantization, num_labels=1, loading_info=True
    )
    if not hasattr(model, "score"):
        raise UserError(f"{type(model).__name__} of {path} has no `score` head; use a decoder model as reward model.")
    if any(key.endswith("score.weight") for key in info["missing_keys"]):
        with torch.no_grad():
            model.score.weight.zero_()
    # Scores decide, so the head multiplies in float32 whatever the backbone does, autocast included.
    model.score.__class__ = _float32_linear()
    tokenizer = load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    _check_vocabulary(model, tokenizer, path)
    _set_token_ids(model, tokenizer, pad_token_id=distinct_pad_id(tokenizer))
    return model


def share_backbone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, trust_remote_code: bool = False
) -> Any:
    """A sequence classifier on the backbone of a causal LM without adapters; its one score starts at 0.

    The two own their blocks, which adapters may change, and share every layer that holds weights: moving those moves
    both, and no weight is in memory twice. Raises UserError when the architecture has no classifier with a score.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = _plain_config(model)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            scorer: Any = AutoModelForSequenceClassification.from_config(config, trust_remote_code=trust_remote_code)
        width = scorer.score.in_features
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{type(model).__name__} has no form with a `score` head; use another decoder model."
        ) from error
    backbone: Any = model.base_model
    shared = {id(m): m for m in backbone.modules() if next(m.children(), None) is None and _holds_tensors(m)}
    setattr(scorer, scorer.base_model_prefix, copy.deepcopy(backbone, shared))
    scorer.score = _float32_linear()(width, 1, bias=False, device=model.device)
    with torch.no_grad():
        scorer.score.weight.zero_()
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit"):  # by which PEFT knows what kind of layer to put around
        if hasattr(model, name):
            setattr(scorer, name, getattr(model, name))
    _set_token_ids(scorer, tokenizer, pad_token_id=distinct_pad_id(tokenizer))
    return scorer.eval()


def _holds_tensors(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(), *module.buffers()))


@functools.cache
def _float32_linear() -> type[nn.Linear]:
    import torch
    from torch import nn

    class Float32Linear(nn.Linear):
        """A linear layer without bias that computes in float32; its weights keep their dtype."""

        def forward(self, input: Tensor) -> Tensor:
            with torch.autocast(input.device.type, enabled=False):
                return input.float() @ self.weight.float().T

    return Float32Linear


def scalar_head(model: Any) -> nn.Linear:
    """A head for one number from each of the model's last hidden states, float32, at zero, on the model's device."""
    import torch

    plain = unwrap_lora(model)
    head = _float32_linear()(plain.config.get_text_config().hidden_size, 1, bias=False, device=plain.device)
    with torch.no_grad():
        head.weight.zero_()
    return head


def _load(
    auto_class: Any,
    path: str,
    config: ModelConfig,
    dtype: torch.dtype | None,
    quantization: Quantization,
    loading_info: bool = False,
    **extra: Any,
) -> Any:
    from safetensors import SafetensorError

    import rlhf.flat  # noqa: F401, it tells Transformers of the attention called varlen

    resolved = resolve_model_path(path)
    settings: dict[str, Any] = {
        "dtype": dtype if dtype is not None else torch_dtype(config.dtype),
        "trust_remote_code": config.trust_remote_code,
        **extra,
    }
    if config.attn_implementation is not None:
        settings["attn_implementation"] = config.attn_implementation
    if quantization != Quantization.none:
        settings["quantization_config"] = _bitsandbytes(quantization, settings["dtype"])
    try:
        with quiet_transformers():
            loaded = auto_class.from_pretrained(resolved, output_loading_info=loading_info, **settings)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(f"The model {path} does not load: {_reason(error)}") from error
    if quantization == Quantization.nf4:
        _mend_nf4_on_cpu(loaded[0] if loading_info else loaded, path)
    return loaded


def _mend_nf4_on_cpu(model: Any, path: str) -> None:
    """Keep bitsandbytes' CPU kernels to what they compute rightly (measured with 0.50)."""
    for name, module in model.named_modules():
        if not hasattr(module, "source_cls") or module.weight.device.type != "cpu":
            continue
        if module.in_features % NF4_BLOCK:
            raise UserError(
                f"model.quantization=nf4 does not work on a CPU for {path}: bitsandbytes unpacks layers there wrongly "
                f"unless their inputs are a multiple of {NF4_BLOCK}, and {name} has {module.in_features}; use "
                "model.quantization=int8, or a GPU."
            )
        # Its fast path rounds to bfloat16, and only where no gradient is asked for: the log-probs of a rollout would
        # not be those of the update.
        module.support_avx512bf16_for_cpu = False


def require_bitsandbytes(quantization: Quantization) -> None:
    """Raises UserError where there is none to quantize with. Imports nothing heavy."""
    import importlib.util

    if quantization != Quantization.none and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"model.quantization={quantization.value} needs bitsandbytes, which is not installed; install it with "
            "`pip install bitsandbytes`, or set model.quantization=none."
        )


def _bitsandbytes(quantization: Quantization, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    require_bitsandbytes(quantization)
    if quantization == Quantization.int8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides load reports and bars: Transformers calls a language-model head `unexpected` in every reward model."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _reason(error: BaseException) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return "it ships Python code of its own; set model.trust_remote_code=true if you know its author."
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows = len(embeddings.weight)
    needed = max(tokenizer.get_vocab().values()) + 1
    if needed > rows:
        raise UserError(
            f"The tokenizer of {path} has ids up to {needed - 1} but its model has {rows} embedding rows; "
            "resize the model's embeddings, or use the tokenizer it was trained with."
        )


def _set_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, pad_token_id: int | None) -> None:
    for target in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        target.pad_token_id = pad_token_id
        target.bos_token_id = tokenizer.bos_token_id
        target.eos_token_id = tokenizer.eos_token_id


def distinct_pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A pad id that is not the end token: the tokenizer's own, a reserved one, else one that no text ends with."""
    vocabulary = tokenizer.get_vocab()
    names = (tokenizer.pad_token, *_PAD_CANDIDATES, tokenizer.unk_token, tokenizer.bos_token)
    # A chat template may yet make another token the one that responses end with.
    ends = {tokenizer.eos_token_id, *(vocabulary.get(layout.end) for layout in LAYOUTS.values() if layout.end)}
    for name in names:
        if name in vocabulary and vocabulary[name] not in ends:
            return int(vocabulary[name])
    return max(int(i) for i in vocabulary.values() if i not in ends)


def freeze(model: ModelT) -> ModelT:
    """The same model in evaluation mode, with no parameter that takes a gradient."""
    model.requires_grad_(False)
    model.eval()
    return model


def freeze_parts(trained: Sequence[Any], config: FreezeConfig) -> None:
    """Take the gradient off what `config` says, in each of the models; those are with their adapters already.

    A name matches a weight if it is one or more whole parts of the weight's name, between dots; * and ? are wildcards.
    Raises UserError for a name that no weight of any of the models has, for more layers than one has, and for a model
    that nothing of is left to train.
    """
    unmatched = list(config.names)
    for model in trained:
        if config.first_layers > 0:
            for layer in _first_layers(model, config.first_layers):
                layer.requires_grad_(False)
        for name, parameter in model.named_parameters():
            found = [p for p in config.names if fnmatch.fnmatchcase(f".{name}.", f"*.{p}.*")]
            if found:
                parameter.requires_grad_(False)
                unmatched = [p for p in unmatched if p not in found]
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(
                f"model.freeze leaves nothing of {type(unwrap_lora(model)).__name__} to train; freeze less."
            )
    if unmatched:
        example = next(name for name, _ in trained[0].named_parameters())
        raise UserError(
            f"model.freeze.names holds {unmatched[0]}, which no weight's name has as a whole part; the first weight is "
            f"{example}."
        )


def _first_layers(model: Any, count: int) -> Sequence[nn.Module]:
    from torch import nn

    plain = unwrap_lora(model)
    total = plain.config.get_text_config().num_hidden_layers
    if count > total:
        raise UserError(f"model.freeze.first_layers is {count}, but {type(plain).__name__} has {total} layers.")
    layers = [m for m in plain.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if not layers:
        raise UserError(f"model.freeze.first_layers finds no list of layers in {type(plain).__name__}; set it to 0.")
    return list(layers[0])[:count]


def disable_dropout(model: nn.Module) -> None:
    """Every dropout rate to 0, those that attention reads as plain numbers too."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010, to mypy every attribute of a module is a tensor


def residual_dropout(model: nn.Module, p: float) -> list[torch.utils.hooks.RemovableHandle]:
    """Dropout with rate `p` on what attention and MLP add to the residual stream, while the model is in training mode.

    Returns handles that take it off again. Raises UserError for an architecture whose layers it does not know.
    """
    from torch import nn
    from torch.nn import functional as F

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (F.dropout(output[0], p), *output[1:])
        return F.dropout(output, p)

    handles = []
    for layers in (m for m in model.modules() if isinstance(m, nn.ModuleList)):
        for layer in layers:
            branches = dict(layer.named_children())
            attention = next((branches[name] for name in _ATTENTION_NAMES if name in branches), None)
            if attention is not None and "mlp" in branches:
                handles += [branch.register_forward_hook(drop) for branch in (attention, branches["mlp"])]
    if not handles:
        raise UserError(
            f"sft.residual_dropout is {p}, but {type(model).__name__} has no attention and mlp for it; set it to 0."
        )
    return handles


def add_lora(model: PreTrainedModel, config: LoraConfig) -> Any:
    """The model with trainable adapters (arXiv:2106.09685) and every other weight frozen but a reward model's head."""
    import peft

    is_scorer = hasattr(model, "score")
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,  # type: ignore[arg-type]
            lora_dropout=config.dropout,
            target_modules=config.target_modules or "all-linear",
            modules_to_save=["score"] if is_scorer else None,
            task_type=peft.TaskType.SEQ_CLS if is_scorer else peft.TaskType.CAUSAL_LM,
        ),
    )


def unwrap_lora(model: Any) -> Any:
    """The Transformers model inside a PEFT model, adapters still in place; any other model as it is."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def stored_state_dict(model: Any) -> dict[str, Tensor]:
    """`merged_state_dict` under the names that `save_pretrained` writes, which are what other programs know.

    Some models are called otherwise in memory: GPT-NeoX's head is `lm_head` there and `embed_out` on disk.
    """
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(unwrap_lora(model), merged_state_dict(model))


def merged_state_dict(model: Any) -> dict[str, Tensor]:
    """Weights under the plain model's names, adapters added in, none quantized; the model itself is left alone."""
    if not hasattr(model, "peft_config"):
        return dict(model.state_dict())
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight
    from transformers.pytorch_utils import Conv1D

    base: Any = unwrap_lora(model)
    state = dict(base.state_dict())
    quantized = {name: module for name, module in base.named_modules() if hasattr(module, "source_cls")}
    for name, module in quantized.items():
        for key in [key for key in state if key.startswith(f"{name}.") and key != f"{name}.bias"]:
            del state[key]  # packed weights, and the numbers to unpack them by
        state[f"{name}.weight"] = dequantize_module_weight(module)
    adapted: list[tuple[str, Any]] = [(n, m) for n, m in base.named_modules() if isinstance(m, LoraLayer)]
    for name, module in adapted:
        weight = state[f"{name}.base_layer.weight"]
        for adapter in module.active_adapters:
            weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
        state[f"{name}.base_layer.weight"] = weight
    for name, module in quantized.items():
        if issubclass(module.source_cls, Conv1D):  # GPT-2's layers, which hold their weights the other way round
            state[f"{name}.weight"] = state[f"{name}.weight"].T.contiguous()
    plain = {}
    for name, tensor in state.items():
        if ".lora_" in name or ".original_module." in name:
            continue
        plain[name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = tensor
    return plain


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    adapter: Adapter | None = None,
) -> None:
    """Writes a folder that loads with plain from_pretrained: safetensors, config, tokenizer, adapters merged.

    The folder appears whole or not at all. `state_dict` stands in for the model's own where a trainer gathered it from
    its shards; `dtype` is what the weights are stored in, the model's own when None; `adapter` is kept beside them, in
    adapter/. A reward model's tokenizer is stored with the pad token of its config, and pads on the right.
    """
    from rlhf.artifacts import save_folder_atomic

    plain = unwrap_lora(model)
    state = dict(state_dict) if state_dict is not None else merged_state_dict(model)
    # save_pretrained knows a tied weight by its memory, which copies and casts do not share.
    state = {name: t for name, t in state.items() if plain.all_tied_weights_keys.get(name) not in state}
    if dtype is not None:
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    pad_token, padding_side = tokenizer.pad_token, tokenizer.padding_side
    try:
        if hasattr(plain, "score"):
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(plain.config.get_text_config().pad_token_id)
            tokenizer.padding_side = "right"
        with save_folder_atomic(folder) as target, quiet_transformers():
            writer = _writer(plain)
            _end_with(writer, tokenizer.eos_token_id)
            writer.save_pretrained(target, state_dict=state)
            tokenizer.save_pretrained(target)
            if dtype is not None:
                _write_dtype(target / "config.json", dtype)
            if adapter is not None:
                adapter.save(target)
    finally:
        tokenizer.pad_token, tokenizer.padding_side = pad_token, padding_side


def _end_with(model: Any, end_token_id: int) -> None:
    """A chat template may end its turns with another token than the model's own: whoever loads it stops there too."""
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.eos_token_id = end_token_id
    if model.can_generate():
        model.generation_config.eos_token_id = end_token_id


def _writer(model: Any) -> Any:
    """What writes a state_dict as `model`'s: itself, or when it is quantized, its architecture without weights.

    A quantized model's save_pretrained writes its own packed weights, whatever it is given.
    """
    import torch

    if getattr(model, "hf_quantizer", None) is None:
        return model
    with torch.device("meta"):
        twin = type(model)(_plain_config(model))
    if model.can_generate():
        twin.generation_config = model.generation_config
    return twin


def _plain_config(model: PreTrainedModel) -> Any:
    """A copy of the model's config that asks for no quantization."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _write_dtype(path: Path, dtype: torch.dtype) -> None:
    """save_pretrained writes the dtype of the model in memory, not of the state_dict that it stores."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def token_scores(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
) -> Tensor:
    """The scalar head's output at every position, (batch, seq) float32; input_ids and the rest are (batch, seq).

    Without a mask the rows must be padded on the right: causal attention keeps padding out of every earlier position.
    """
    hidden = hidden_states(model, input_ids, attention_mask, position_ids)
    return unwrap_lora(model).score(hidden).squeeze(-1).float()


def hidden_states(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    **given: Any,
) -> Tensor:
    """What the head sees: final-norm output, (batch, seq, hidden), in the model's dtype.

    given: further keyword arguments of the model's forward.
    """
    from rlhf.zero import begin_pass

    begin_pass(model)
    backbone = unwrap_lora(model).base_model
    tensors = {"attention_mask": attention_mask, "position_ids": position_ids}
    # Left out when absent: Bloom, which has no positions to number, does not even take the argument.
    named = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return backbone(input_ids=input_ids, use_cache=False, **named, **given).last_hidden_state


def pad_right(ids: Sequence[Sequence[int]], pad_token_id: int, multiple_of: int = 8) -> tuple[Tensor, Tensor]:
    """(batch, seq) int64 ids padded on the right to a multiple, and (batch,) int64 lengths."""
    import torch

    lengths = torch.tensor([len(row) for row in ids])
    width = round_up(int(lengths.max()), multiple_of)
    padded = torch.full((len(ids), width), pad_token_id, dtype=torch.long)
    for row, sequence in enumerate(ids):
        padded[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return padded, lengths


def round_up(n: int, multiple: int) -> int:
    """The least multiple that is not below n."""
    return -(-n // multiple) * multiple


def length_buckets(lengths: Sequence[int], token_budget: int, *, least_rows: int = 1) -> list[list[int]]:
    """Indices grouped by length, longest first: a group ends where the budget is spent or padding would grow too much.

    The budget is in tokens, padding included; a group has at least `least_rows` rows even where those are over it.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    buckets: list[list[int]] = []
    width = 0
    start = 0
    while start < len(order):
        block_width = round_up(max(lengths[order[start]], 1), WIDTH_MULTIPLE)
        rows = max(min(ROW_MULTIPLE, token_budget // block_width), least_rows)
        block = order[start : start + rows]
        start += rows
        if buckets:
            padding = rows * (width - block_width)
            cheap = padding <= max(PADDING_TOKENS, PADDING_SHARE * width * len(buckets[-1]))
            if cheap and width * (len(buckets[-1]) + rows) <= token_budget:
                buckets[-1] += block
                continue
        width = block_width
        buckets.append(block)
    return buckets


def last_hidden_states(model: Any, ids: Sequence[Sequence[int]], *, token_budget: int) -> Tensor:
    """The head's input at each sequence's last token, (n, hidden) in the model's dtype, without gradient."""
    import torch

    from rlhf.flat import can_run_flat, flat_attention, flat_groups, flatten
    from rlhf.last_layer import last_layer_only_at

    assert all(len(row) > 0 for row in ids), "a scored sequence has at least one token"
    all_lengths = [len(row) for row in ids]
    device = unwrap_lora(model).device
    features: list[Tensor] = [torch.empty(0)] * len(ids)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if can_run_flat(model):
                for group in flat_groups(all_lengths, token_budget):
                    flat = flatten([ids[i] for i in group], device=device)
                    ends = flat.starts + torch.tensor([all_lengths[i] for i in group], device=device) - 1
                    with flat_attention(model, flat) as given, last_layer_only_at(model, ends):
                        hidden = hidden_states(model, flat.input_ids, position_ids=flat.position_ids, **given)[0]
                    for index, row in zip(group, hidden[ends], strict=True):
                        features[index] = row
                return torch.stack(features)
            for bucket in length_buckets(all_lengths, token_budget):
                padded, lengths = pad_right([ids[i] for i in bucket], pad_token_id=0)
                hidden = hidden_states(model, padded.to(device))
                for index, row in zip(bucket, hidden[torch.arange(len(bucket)), lengths - 1], strict=True):
                    features[index] = row
    finally:
        model.train(was_training)
    return torch.stack(features)


def sequence_scores(model: Any, ids: Sequence[Sequence[int]], *, token_budget: int = 8192) -> Tensor:
    """The score of each whole sequence, (n,) float32 on the CPU, read at its last token; no gradient.

    ids: prompt + response + [end token if the response ended], without padding. Each is run once, beside others of
    its length, in batches of at most `token_budget` tokens.
    """
    import torch

    if not ids:
        return torch.empty(0)
    features = last_hidden_states(model, ids, token_budget=token_budget)
    with torch.no_grad():
        return unwrap_lora(model).score(features).squeeze(-1).float().cpu()
