from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rlhf.config import DType, FreezeConfig, LoraConfig, ModelConfig, Template
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.models.batches import length_buckets
from rlhf.models.folders import resolve_model_path
from rlhf.models.freezing import disable_dropout, freeze, freeze_parts, residual_dropout
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.lora import add_lora
from rlhf.models.save import save_model
from rlhf.models.scores import sequence_scores, token_scores
from rlhf.models.tokenizers import distinct_pad_id, load_tokenizer
from tests.support.tiny import ARCHITECTURES, build_tokenizer, save_tiny_model

SEQUENCES = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18, 19]]


def left_padded(sequences: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in sequences) + 2
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in sequences])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in sequences])
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pad", [False, True])
def test_left_padding_changes_no_log_prob(tmp_path: Path, architecture: str, pad: bool) -> None:
    path = save_tiny_model(tmp_path, architecture, pad=pad)
    model = load_causal_lm(path, ModelConfig()).eval()
    tokenizer = load_tokenizer(path)
    assert (tokenizer.pad_token_id == tokenizer.eos_token_id) is not pad
    ids, mask, positions = left_padded(SEQUENCES, tokenizer.pad_token_id)
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits.log_softmax(-1)
        for row, sequence in enumerate(SEQUENCES):
            alone = model(input_ids=torch.tensor([sequence])).logits[0].log_softmax(-1)
            torch.testing.assert_close(padded[row, -len(sequence) :], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])  # with eager, which `can_run_flat`, nothing is padded
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_the_same_left_padded_right_padded_batched_and_alone(
    tmp_path: Path, architecture: str, attention: str
) -> None:
    model = scorer(save_tiny_model(tmp_path, architecture), attn_implementation=attention)
    expected = torch.stack(
        [model(input_ids=torch.tensor([row])).logits[0, 0].detach() for row in SEQUENCES]  # Transformers' own reading
    )
    for budget in (1, 16, 8192):
        torch.testing.assert_close(sequence_scores(model, SEQUENCES, token_budget=budget), expected)
    with torch.no_grad():
        scores = token_scores(model, *left_padded(SEQUENCES, 0))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores[:, -1], expected, atol=1e-5, rtol=1e-5)


def scorer(path: str, **settings: Any) -> Any:
    model = load_reward_model(path, ModelConfig(**settings), fresh_head=True)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.score.weight)
    return model.eval()


def test_a_score_is_read_at_an_end_token_that_is_also_the_pad_token(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path, "gpt2")
    end = load_tokenizer(path).eos_token_id
    model = scorer(path)
    with_end = sequence_scores(model, [[*SEQUENCES[0], end]], token_budget=64)
    without = sequence_scores(model, SEQUENCES[:1], token_budget=64)
    assert abs(float(with_end - without)) > 1e-3
    assert model.config.pad_token_id != end
    with torch.no_grad():
        plain = model(input_ids=torch.tensor([[*SEQUENCES[0], end]])).logits[0]
    torch.testing.assert_close(plain, with_end)


def test_the_head_of_a_causal_model_starts_at_zero_and_a_trained_one_is_kept(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "base", "llama")
    fresh = load_reward_model(path, ModelConfig(), fresh_head=True)
    assert torch.equal(fresh.score.weight, torch.zeros_like(fresh.score.weight))
    trained = scorer(path)
    save_model(trained, load_tokenizer(path), tmp_path / "saved")
    again = load_reward_model(str(tmp_path / "saved"), ModelConfig())
    assert torch.equal(again.score.weight, trained.score.weight)


def test_the_models_own_sampling_settings_are_off(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path, "llama")
    GenerationConfig(temperature=0.3, top_k=3, do_sample=True, repetition_penalty=1.5).save_pretrained(path)
    model = load_causal_lm(path, ModelConfig())
    own = model.generation_config
    assert own.top_k != 3
    assert own.temperature != 0.3
    assert own.repetition_penalty != 1.5
    assert own.eos_token_id == load_tokenizer(path).eos_token_id


def test_more_embedding_rows_than_tokens_are_fine_and_fewer_are_refused(tmp_path: Path) -> None:
    load_causal_lm(save_tiny_model(tmp_path / "more", "llama", extra_rows=7), ModelConfig())
    short = save_tiny_model(tmp_path / "fewer", "llama", extra_rows=-2)
    with pytest.raises(UserError, match="embedding rows"):
        load_causal_lm(short, ModelConfig())
    with pytest.raises(UserError, match="embedding rows"):
        load_reward_model(short, ModelConfig(), fresh_head=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copies_of_tied_weights_are_stored_once(tmp_path: Path, architecture: str) -> None:
    """A trainer hands over copies, which share no memory, and perhaps of another dtype."""
    path = save_tiny_model(tmp_path / "base", architecture, tied=True)
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    copies = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_model(model, tokenizer, tmp_path / "saved", state_dict=copies, dtype=torch.bfloat16)
    stored, given = (load_file(folder / "model.safetensors") for folder in (tmp_path / "saved", tmp_path / "base"))
    assert stored.keys() == given.keys()
    again = load_causal_lm(str(tmp_path / "saved"), ModelConfig())
    for name, weight in again.state_dict().items():
        assert torch.equal(weight.to(torch.bfloat16), copies[name].to(torch.bfloat16))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_is_the_model(tmp_path: Path, architecture: str, tied: bool) -> None:
    path = save_tiny_model(tmp_path / "base", architecture, tied=tied)
    model = load_causal_lm(path, ModelConfig())
    save_model(model, load_tokenizer(path), tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    ids = torch.tensor([SEQUENCES[0]])
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, model.eval()(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").eos_token == "<|endoftext|>"
    assert not list((tmp_path / "saved").glob("*.bin"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_is_merged_when_saved_and_the_model_in_memory_keeps_its_adapters(
    tmp_path: Path, architecture: str
) -> None:
    path = save_tiny_model(tmp_path / "base", architecture)
    model = add_lora(load_causal_lm(path, ModelConfig()), LoraConfig(r=4))
    assert all(p.requires_grad == ("lora_" in n) for n, p in model.named_parameters())
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.tensor([SEQUENCES[0]])
    with torch.no_grad():
        before = model.eval()(ids).logits
        save_model(model, load_tokenizer(path), tmp_path / "saved")
        after = model(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()(ids).logits
    assert torch.equal(before, after)
    torch.testing.assert_close(merged, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_residual_dropout_acts_in_training_alone_and_comes_off(tmp_path: Path, architecture: str) -> None:
    model = load_causal_lm(save_tiny_model(tmp_path, architecture), ModelConfig())
    disable_dropout(model)
    ids = torch.tensor([SEQUENCES[0]])
    with torch.no_grad():
        clean = model.eval()(ids).logits
        assert torch.equal(model.train()(ids).logits, clean)
        handles = residual_dropout(model, 0.5)
        assert len(handles) == 4  # attention and MLP of two layers
        assert torch.equal(model.eval()(ids).logits, clean)
        assert not torch.equal(model.train()(ids).logits, clean)
        for handle in handles:
            handle.remove()
        assert torch.equal(model.train()(ids).logits, clean)


def test_freeze_leaves_nothing_to_train(tmp_path: Path) -> None:
    model = freeze(load_causal_lm(save_tiny_model(tmp_path), ModelConfig()))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def trained(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_layers_and_named_weights_are_frozen_and_nothing_else(tmp_path: Path, architecture: str) -> None:
    model = scorer(save_tiny_model(tmp_path, architecture))
    everything = trained(model)
    freeze_parts([model], FreezeConfig(first_layers=1))
    in_first = {name for name in everything if ".0." in name}
    assert trained(model) == everything - in_first
    assert len(in_first) > 4
    freeze_parts([model], FreezeConfig(names=["score", "1.*att*"]))
    named = {name for name in everything if ".1." in name and "att" in name} | {"score.weight"}
    assert trained(model) == everything - in_first - named
    assert len(named) > 3


def test_a_name_is_matched_as_whole_parts() -> None:
    model = torch.nn.ModuleDict({"layers_1": torch.nn.Linear(1, 1), "layers_10": torch.nn.Linear(1, 1)})
    freeze_parts([model], FreezeConfig(names=["layers_1"]))
    assert trained(model) == {"layers_10.weight", "layers_10.bias"}


def test_freezing_nothing_or_everything_is_refused(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path, "llama")
    policy, value_model = load_causal_lm(path, ModelConfig()), scorer(path)
    for config, message in (
        (FreezeConfig(names=["lm_head", "layer.0"]), "holds layer.0, which no weight's name has"),
        (FreezeConfig(first_layers=3), "LlamaForCausalLM has 2 layers"),
        (FreezeConfig(names=["model", "lm_head"]), "nothing of LlamaForCausalLM to train"),
    ):
        with pytest.raises(UserError, match=message):
            freeze_parts([policy, value_model], config)


def test_dtype_is_that_of_the_weights_and_scores_stay_float32(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    assert {p.dtype for p in load_causal_lm(path, ModelConfig(dtype=DType.bfloat16)).parameters()} == {torch.bfloat16}
    model = scorer(path, dtype=DType.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    scores = sequence_scores(model, SEQUENCES, token_budget=64)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def test_attention_implementation_is_honoured(tmp_path: Path) -> None:
    model = load_causal_lm(save_tiny_model(tmp_path), ModelConfig(attn_implementation="eager"))
    assert model.config._attn_implementation == "eager"


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights.*safetensors"):
        resolve_model_path(path)


def test_folder_without_a_shard_is_refused(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"lacks model-00002-of-00002.safetensors"):
        resolve_model_path(path)


@pytest.mark.parametrize("path", ["", "/no/such/folder", "./nothing", "a/b/c", "builtin:nothing"])
def test_a_path_that_is_no_model_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=r"model\.path"):
        resolve_model_path(path)


def test_folder_with_adapters_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="only LoRA adapters"):
        resolve_model_path(str(tmp_path))


@pytest.mark.parametrize("path", ["gpt2", "meta-llama/Llama-3.2-1B"])
def test_hub_ids_are_left_alone(path: str) -> None:
    assert resolve_model_path(path) == path


def test_damaged_weights_are_a_sentence(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(UserError, match="does not load"):
        load_causal_lm(path, ModelConfig())


def test_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    tokenizer = build_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(path)
    with pytest.raises(UserError, match="no end-of-sequence token"):
        load_tokenizer(path)


def test_code_that_ships_with_a_model_runs_only_when_asked(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    with pytest.raises(UserError, match="trust_remote_code"):
        load_causal_lm(path, ModelConfig())
    model = load_causal_lm(path, ModelConfig(trust_remote_code=True))
    assert type(model).__name__ == "MyModel"


def test_length_buckets_cover_each_sequence_once_within_the_budget() -> None:
    lengths = [3, 50, 9, 17, 200, 8, 1, 64]
    buckets = length_buckets(lengths, token_budget=128)
    assert sorted(index for bucket in buckets for index in bucket) == list(range(len(lengths)))
    for bucket in buckets:
        width = -(-max(lengths[i] for i in bucket) // 8) * 8
        assert len(bucket) == 1 or width * len(bucket) <= 128


def test_length_buckets_pad_little_and_make_few_groups_of_rows_alike() -> None:
    lengths = [(i * 37) % 96 + 1 for i in range(96)]
    buckets = length_buckets(lengths, token_budget=8192)
    assert sum(len(bucket) * max(lengths[i] for i in bucket) for bucket in buckets) < 1.2 * sum(lengths)
    assert len(length_buckets([64] * 96, token_budget=8192)) == 1


def test_importing_the_module_does_not_import_torch() -> None:
    code = (
        "import sys, rlhf.models, rlhf.data, rlhf.data.templates, rlhf.data.encoding; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_saved_model_stops_at_the_end_token_that_its_chat_template_chose(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(special=("<|im_start|>", "<|im_end|>"))
    path = save_tiny_model(tmp_path / "base", "llama", extra_rows=8)
    tokenizer.save_pretrained(path)
    before = load_tokenizer(path).eos_token_id
    model, chosen = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    ChatTemplate(chosen, Template.chatml)
    save_model(model, chosen, tmp_path / "saved")
    saved = load_causal_lm(str(tmp_path / "saved"), ModelConfig())
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end != before
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").eos_token_id == end
    assert saved.config.eos_token_id == end
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").generation_config.eos_token_id == end
    assert distinct_pad_id(load_tokenizer(path)) != end


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_head_is_given_one_block_of_memory_whatever_is_kept_of_the_logits(tmp_path: Path, architecture: str) -> None:
    """A product with a slice of (batch, seq, hidden) copies the head's weight once a row."""
    model = load_causal_lm(save_tiny_model(tmp_path, architecture), ModelConfig())
    ids = torch.randint(1, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    whole = model(ids).logits
    given: list[torch.Tensor] = []
    head: Any = model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    copied = copy.deepcopy(model)
    for kept in (1, 2, torch.tensor([3, 7])):
        for one in (model, copied):
            places = slice(-kept, None) if isinstance(kept, int) else kept
            torch.testing.assert_close(one(ids, logits_to_keep=kept).logits, whole[:, places], atol=1e-5, rtol=1e-5)
    assert len(given) == 6
    assert all(hidden.is_contiguous() for hidden in given)
