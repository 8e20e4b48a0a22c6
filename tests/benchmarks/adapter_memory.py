"""Memory of PPO's four roles: every weight trained, adapters, adapters on one base, and the base quantized.

    python tests/benchmarks/adapter_memory.py [--hidden 512 --layers 6]

A Llama with random weights, and a reward model that is an adapter of it. Each variant loads the roles as the stage
does, makes experience of random tokens and takes two optimizer steps, in a process of its own. Writes
tests/benchmarks/adapter_memory.json and prints a table. The quantized variants need bitsandbytes, and are left out
without it. Weights are those in memory, counted once however many roles use them; gradients are those of policy and
value model just before the first step; peak RSS is what the process held at most, above what it held after its imports.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.config import Config, LoraConfig, ModelConfig, PPOConfig, Quantization
from rlhf.models.adapters import adapter_of
from rlhf.models.load import load_reward_model
from rlhf.models.lora import add_lora
from rlhf.models.save import save_model
from rlhf.models.scores import sequence_scores
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.batching import sequences
from rlhf.ppo.experience import Responses, make_experience
from rlhf.ppo.roles import Roles
from rlhf.ppo.setup import load_roles
from rlhf.ppo.training import Training
from rlhf.ppo.update import split_minibatches, update

LORA = LoraConfig(r=16)
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": LORA},
    "lora, int8": {"lora": LORA, "quantization": Quantization.int8},
    "lora, nf4": {"lora": LORA, "quantization": Quantization.nf4},
    "shared": {"lora": LORA, "share_base": True},
    "shared, int8": {"lora": LORA, "share_base": True, "quantization": Quantization.int8},
    "shared, nf4": {"lora": LORA, "share_base": True, "quantization": Quantization.nf4},
}
BATCH, TOKENS = 16, 32  # responses, and tokens in each prompt and each response


def prepare(folder: Path, hidden: int, layers: int) -> int:
    """Policy and reward model on disk; the policy's number of weights."""
    tokenizer = load_tokenizer("builtin:sandbox-m")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=8,
        max_position_embeddings=256,
    )
    policy = LlamaForCausalLM(config)
    save_model(policy, tokenizer, folder / "policy")
    trained = add_lora(load_reward_model(str(folder / "policy"), ModelConfig(), fresh_head=True), LORA)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)
    adapter = adapter_of(trained, folder / "policy")
    save_model(trained, tokenizer, folder / "reward_model", adapter=adapter)
    return sum(p.numel() for p in policy.parameters())


def measure(folder: Path, variant: str) -> dict[str, int]:
    """Bytes of one variant."""
    chosen = dict(VARIANTS[variant])
    before = _rss()
    ppo = PPOConfig(
        batch_size=BATCH,
        num_minibatches=2,
        epochs=1,
        micro_batch_tokens=512,
        share_base=chosen.pop("share_base", False),
    )
    config = Config(model=ModelConfig(**chosen), ppo=ppo)
    parents = {name: folder / name for name in ("policy", "reward_model")}
    roles = load_roles(types.SimpleNamespace(config=config, parents=parents))  # type: ignore[arg-type]
    training = Training(roles, config)
    gradients: list[int] = []
    step = training.policy.step

    def counting() -> float:
        tensors = (*training.policy.parameters, *training.value_model.parameters)
        gradients.append(sum(p.grad.nbytes for p in tensors if p.grad is not None))
        return step()

    training.policy.step = counting  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    prompts, responses = torch.randint(3, 900, (2, BATCH, TOKENS), generator=generator).tolist()
    whole = [p + r for p, r in zip(prompts, responses, strict=True)]
    scores = sequence_scores(roles.reward_model, whole, token_budget=ppo.micro_batch_tokens)
    batch = sequences(prompts, responses, device="cpu", context=256)
    minibatches = split_minibatches(BATCH, ppo.num_minibatches, 0)
    experience = make_experience(
        roles, Responses(batch, scores, [True] * BATCH), minibatches, config=ppo, kl_coef=0.05, temperature=1.0
    )
    update(training.policy, training.value_model, experience, ppo, temperature=1.0, seed=0)
    states = [s for e in (training.policy, training.value_model) for s in e.optimizer.state.values()]
    return {
        "weights": weights(roles),
        "trained": sum(p.nbytes for e in (training.policy, training.value_model) for p in e.parameters),
        "gradients": gradients[0],
        "optimizer": sum(t.nbytes for state in states for t in state.values()),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
    }


def weights(roles: Roles) -> int:
    """Bytes of all roles' weights and buffers, packed ones with the numbers to unpack them by, each counted once."""
    found: dict[int, int] = {}
    with roles.reference.model() as reference:
        for role in (roles.policy, reference, roles.value_model, roles.reward_model):
            for module in role.modules():
                for tensor in _own_tensors(module):
                    found[tensor.data_ptr()] = tensor.nbytes
    return sum(found.values())


def _own_tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    packed: Any = getattr(module, "weight", None)
    state: Any = getattr(packed, "quant_state", None)
    while state is not None:
        yield from (state.absmax, state.code)
        state = state.state2
    if getattr(module, "state", None) is not None and module.state.SCB is not None:
        yield module.state.SCB  # type: ignore[misc]


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    args = parser.parse_args()
    quantizes = importlib.util.find_spec("bitsandbytes") is not None
    for name in ("peft.tuners.lora", *(["bitsandbytes"] if quantizes else [])):
        importlib.import_module(name)  # else only the variants that use them would pay for their code
    results: dict[str, Any] = {}
    # Forked once all is imported, so that nothing but the work adds to a process's memory.
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool,
    ):
        count = pool.apply(prepare, (Path(folder), args.hidden, args.layers))
        for variant in VARIANTS:
            if quantizes or "quantization" not in VARIANTS[variant]:
                results[variant] = pool.apply(measure, (Path(folder), variant))
                print(variant, results[variant], flush=True)
    report = {
        "weights_of_the_policy": count,
        "adapter_rank": LORA.r,
        "sequences": BATCH,
        "tokens_a_sequence": 2 * TOKENS,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "bytes": results,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    columns = list(next(iter(results.values())))
    print(f"{count / 1e6:.1f} million weights, float32; MB\n{'':14}" + "".join(f"{name:>11}" for name in columns))
    for variant, row in results.items():
        print(f"{variant:14}" + "".join(f"{row[name] / 1e6:>11.1f}" for name in columns))


if __name__ == "__main__":
    main()
