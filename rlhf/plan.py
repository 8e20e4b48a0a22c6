"""What each stage takes of a GPU's memory, estimated from a model's config alone: `python -m rlhf stage=plan`.

Weights, gradients and AdamW's state are arithmetic (ZeRO, arXiv:1910.02054, section 3; measured in docs/evidence.md).
Activations are the count of arXiv:2205.05198, equation 1 less its attention scores, which fused kernels do not keep: an
estimate, as is what a framework takes besides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config import CHAIN, Config, DType, StageName, ZeroConfig
from rlhf.errors import UserError

GIB = 2**30
# A CUDA context, NCCL's buffers and what an allocator cannot use of its blocks.
_CONTEXT_BYTES = 1.5 * GIB
_FRAGMENTS = 0.05  # share of all else
_ADAM = 8  # bytes a trained number: two float32 moments
_MASTER = 4  # a float32 copy of what is trained in fewer bytes, or in DeepSpeed's flat buffers
_ACTIVATION_BYTES = 34  # a token, layer and hidden number, in two-byte numbers
_WIDTHS = (9, 11, 11, 13, 9, 8)  # of the table's columns
_LOGIT_COPIES = 3  # float32: the logits, their gradient, the softmax


@dataclass(frozen=True)
class Shape:
    """What the estimate needs to know of a model."""

    name: str
    weights: int  # numbers
    trained: int  # numbers that take a gradient
    layers: int
    hidden: int
    vocabulary: int
    cache: int  # numbers that a token's keys and values are, all layers together


@dataclass(frozen=True)
class Need:
    """Bytes on one GPU at a stage's peak."""

    stage: StageName
    weights: float
    gradients: float
    optimizer: float
    activations: float  # logits with them
    cache: float  # keys and values of a rollout, and weights made whole for it

    @property
    def total(self) -> float:
        # Updates and rollouts take turns: gradients and activations are gone when a cache is there.
        live = self.weights + self.optimizer + max(self.gradients + self.activations, self.cache)
        return live * (1 + _FRAGMENTS) + _CONTEXT_BYTES


def shape_of(config: Config) -> Shape:
    """Counts of the model at model.path, made without its weights. Raises UserError where it has no config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rlhf.models.folders import resolve_model_path
    from rlhf.models.load import quiet_transformers
    from rlhf.models.lora import add_lora

    path = config.model.path
    try:
        folder = Path(path).expanduser()  # which needs no weights to be planned for
        where = str(folder) if folder.is_dir() else resolve_model_path(path)
        found: Any = AutoConfig.from_pretrained(where, trust_remote_code=config.model.trust_remote_code)
        with torch.device("meta"), quiet_transformers():
            model: Any = AutoModelForCausalLM.from_config(found, trust_remote_code=config.model.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"The config of {config.model.path} does not load: {str(error).splitlines()[0]}") from error
    count = sum(p.numel() for p in model.parameters())
    trained = count
    if config.model.lora.r > 0:
        with torch.device("meta"):
            adapted = add_lora(model, config.model.lora)
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    text = found.get_text_config()
    heads = text.num_attention_heads
    depth = getattr(text, "head_dim", None) or text.hidden_size // heads
    kept = getattr(text, "num_key_value_heads", None) or heads
    layers = text.num_hidden_layers
    return Shape(
        config.model.path, count, trained, layers, text.hidden_size, text.vocab_size, 2 * layers * kept * depth
    )


def need(config: Config, stage: StageName, shape: Shape) -> Need:
    """The peak of one stage on each of launch.gpus_per_node GPUs."""
    ranks = config.launch.gpus_per_node
    zero = config.zero
    width = 4 if config.model.dtype == DType.float32 else 2
    is_ppo = stage == StageName.ppo
    if stage == StageName.compare:
        return Need(
            stage, shape.weights * width, 0, 0, _activations(config, stage, shape, width), _cache(config, shape)
        )
    bodies, trained, frozen = _models(config) if is_ppo else (1, 1, 0)

    # Under mixed precision without DeepSpeed a Trainer holds what it trains in float32; PPO's engine has masters beside
    # the weights. DeepSpeed always has masters, in flat buffers of its own.
    held = 4 if zero.stage == 0 and not is_ppo and config.model.lora.r == 0 else width
    weights = float(shape.weights * (held * bodies + width * frozen))
    gradients = float(shape.trained * held * trained)
    optimizer = float(shape.trained * _ADAM * trained)
    if zero.stage > 0 or held != 4:
        optimizer += shape.trained * _MASTER * trained
    if zero.stage == 0 and held != 4:
        gradients += shape.trained * 4 * trained  # of the masters, during a step
    if zero.stage >= 1:
        optimizer /= ranks
    if zero.stage >= 2:
        gradients /= ranks
    whole = 0.0
    if zero.stage == 3:
        weights /= ranks
        whole = shape.weights * width if is_ppo and config.rollout.gather else 0.0
    if zero.offload:
        optimizer = 0.0
        weights = 2 * shape.weights / shape.layers * width if zero.stage == 3 else weights  # a layer, and the next
    cache = _cache(config, shape) + whole if is_ppo else 0.0
    return Need(stage, weights, gradients, optimizer, _activations(config, stage, shape, width), cache)


def _models(config: Config) -> tuple[int, int, int]:
    """PPO's bodies that are trained, sets of what is trained of one, and frozen bodies."""
    ppo = config.ppo
    trained = 1 + ppo.has_value_model
    reward_models = ppo.takes_reward_model + len(ppo.reward_models)
    if ppo.share_base:
        return 1, trained, 0
    reference = config.model.lora.r == 0  # with adapters it is the policy with its adapter off
    return trained, trained, reference + reward_models


def _activations(config: Config, stage: StageName, shape: Shape, width: int) -> float:
    """Of one micro-batch, that of the largest model alone: PPO's take turns."""
    longest = config.data.max_prompt_tokens + config.data.max_response_tokens
    tokens = config.ppo.micro_batch_tokens
    if stage == StageName.sft:
        tokens = config.sft.micro_batch_size_per_device * longest
    elif stage == StageName.reward:
        tokens = config.reward.micro_batch_size_per_device * config.data.sandbox.max_completions * longest
    per_layer = _ACTIVATION_BYTES * width / 2 * shape.hidden
    kept = per_layer * shape.layers
    if config.model.gradient_checkpointing:
        kept = width * shape.hidden * shape.layers + per_layer  # each layer's input, and one layer at a time
    if stage == StageName.compare:
        kept = per_layer  # nothing is kept for a backward pass
    logits = 0 if stage == StageName.reward else tokens * shape.vocabulary
    if stage in (StageName.ppo, StageName.compare):
        logits = min(logits, 2**26)  # made some tokens at a time
    return tokens * kept + logits * 4 * _LOGIT_COPIES


def _cache(config: Config, shape: Shape) -> float:
    width = 4 if config.model.dtype == DType.float32 else 2
    ranks = config.launch.gpus_per_node
    rows = min(config.rollout.batch_size, -(-config.ppo.batch_size // ranks))
    return rows * (config.data.max_prompt_tokens + config.rollout.max_new_tokens) * shape.cache * width


def advice(config: Config, stage: StageName, shape: Shape, limit: float) -> str | None:
    """The least change that makes the stage fit, as words to type; None where none of those tried does."""
    for words, changed in _changes(config, stage):
        if need(changed, stage, shape).total <= limit:
            return words
    return None


def _changes(config: Config, stage: StageName) -> Iterator[tuple[str, Config]]:
    """Settings that take less memory, from those that cost the least time to those that cost the most."""
    steps: list[tuple[str, Any]] = []
    if config.model.dtype == DType.float32:
        steps.append(("model.dtype=bfloat16", lambda c: _with(c, "model", dtype=DType.bfloat16)))
    if not config.model.gradient_checkpointing:
        steps.append(("model.gradient_checkpointing=true", lambda c: _with(c, "model", gradient_checkpointing=True)))
    small = {
        StageName.sft: ("sft.micro_batch_size_per_device=1", lambda c: _with(c, "sft", micro_batch_size_per_device=1)),
        StageName.reward: (
            "reward.micro_batch_size_per_device=1",
            lambda c: _with(c, "reward", micro_batch_size_per_device=1),
        ),
        StageName.ppo: ("ppo.micro_batch_tokens=2048", lambda c: _with(c, "ppo", micro_batch_tokens=2048)),
    }
    if stage in small:
        steps.append(small[stage])
    words: list[str] = []
    for word, change in steps:
        config = change(config)
        words.append(word)
        yield " ".join(words), config
    for zero, settings in (("1", (1, False)), ("2", (2, False)), ("3", (3, False)), ("3_offload", (3, True))):
        if settings > (config.zero.stage, config.zero.offload) and (config.launch.gpus_per_node > 1 or settings[1]):
            yield " ".join([*words, f"zero={zero}"]), dataclasses.replace(config, zero=ZeroConfig(*settings))


def _with(config: Config, node: str, **values: Any) -> Config:
    return dataclasses.replace(config, **{node: dataclasses.replace(getattr(config, node), **values)})


def table(config: Config) -> str:
    """What stage=plan prints."""
    shape = shape_of(config)
    limit = config.plan.gpu_memory_gib * GIB
    zero = f"zero={config.zero.stage or 'none'}{'_offload' if config.zero.offload else ''}"
    lines = [
        f"{shape.name}: {shape.weights / 1e6:,.1f} million weights, {shape.trained / 1e6:,.1f} trained; "
        f"{config.model.dtype.value}, {config.launch.gpus_per_node} GPUs of {config.plan.gpu_memory_gib:g} GiB, {zero}",
        "",
        "GiB on each GPU      weights  gradients  optimizer  activations  rollout    peak",
    ]
    hints = []
    for stage in CHAIN:
        found = need(config, stage, shape)
        fits = found.total <= limit
        parts = (found.weights, found.gradients, found.optimizer, found.activations, found.cache, found.total)
        cells = "".join(f"{part / GIB:>{width}.3g}" for part, width in zip(parts, _WIDTHS, strict=True))
        lines.append(f"{stage.value:<19}{cells}  {'fits' if fits else 'does not fit'}")
        if not fits:
            hint = advice(config, stage, shape, limit)
            hints.append(f"{stage.value}: {hint}" if hint else f"{stage.value}: more GPUs, or model.lora.r=16")
    lines += [
        "",
        "Peaks add 1.5 GiB for CUDA and NCCL, and 5 % for what an allocator loses. Activations are an estimate.",
    ]
    if hints:
        lines += ["", "To make it fit:", *(f"  {hint}" for hint in hints)]
    return "\n".join(lines)
