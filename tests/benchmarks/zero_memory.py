"""Bytes of weights, gradients and optimizer state on each process under ZeRO, measured beside the paper's formula.

    python tests/benchmarks/zero_memory.py        # 2 and 4 processes, stages 0 to 3; a minute or two

Each process counts the bytes of all tensors that are alive: with the engine made, with gradients before a step, and
after it. What is there besides (batches, buffers) is in the numbers too. They are kept in zero_memory.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.support.ranks import run_ranks

LAYERS, HIDDEN, VOCABULARY = 4, 512, 4096
RESULT = Path(__file__).with_suffix(".json")


def model(dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
    )
    return LlamaForCausalLM(config).to(dtype)


def alive() -> int:
    """Bytes of the memory behind all tensors, each piece once."""
    gc.collect()
    seen: dict[int, int] = {}
    for thing in gc.get_objects():
        try:
            if isinstance(thing, torch.Tensor) and thing.device.type == "cpu":
                storage = thing.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
                if thing.grad is not None:
                    storage = thing.grad.untyped_storage()
                    seen[storage.data_ptr()] = storage.nbytes()
        except (ReferenceError, RuntimeError):
            continue
    return sum(seen.values())


def measure(stage: int, dtype: str) -> dict[str, float]:
    """On one process: bytes a parameter of the model, as each is first there."""
    from rlhf.config import Device, OptimConfig, ZeroConfig
    from rlhf.runtime import distributed
    from rlhf.training import zero
    from rlhf.training.engine import Engine

    torch.set_num_threads(1)
    zero.PERSISTENT_NUMBERS = 0
    zero._BUCKET_NUMBERS = 100_000  # else buffers larger than this model
    distributed.join(Device.cpu, alone=True)
    before = alive()
    built = model(getattr(torch, dtype))
    count = sum(p.numel() for p in built.parameters())
    engine: Any = (
        Engine(built, OptimConfig()) if stage == 0 else zero.ZeroEngine(built, OptimConfig(), ZeroConfig(stage))
    )
    made = alive() - before
    ids = torch.randint(VOCABULARY, (1, 16))
    loss = built(input_ids=ids, labels=ids, use_cache=False).loss
    engine.backward(loss)
    del loss
    with_gradients = alive() - before
    engine.step()
    after = alive() - before
    return {name: value / count for name, value in (("made", made), ("gradients", with_gradients), ("stepped", after))}


def formula(stage: int, ranks: int, dtype: str) -> tuple[float, float, float]:
    """Weights, gradients, optimizer state in bytes a parameter (arXiv:1910.02054, section 3), masters with the last."""
    width = 4 if dtype == "float32" else 2
    state = 8 if stage == 0 and width == 4 else 12  # DeepSpeed keeps float32 masters beside float32 weights too
    return (
        width / (ranks if stage == 3 else 1),
        width / (ranks if stage >= 2 else 1),
        state / (ranks if stage >= 1 else 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        stage, dtype = arguments.rank_of
        print("MEASURED " + json.dumps(measure(int(stage), dtype)))
        return
    results = []
    print("bytes a parameter on the fullest process    measured: made  stepped    formula: weights + optimizer")
    for dtype in ("float32", "bfloat16"):
        for ranks in (1, 2, 4):
            for stage in (0, 1, 2, 3) if ranks > 1 else (0,):
                said = run_ranks(ranks, "tests.benchmarks.zero_memory", "--rank-of", str(stage), dtype)
                found = [json.loads(text.split("MEASURED ")[1].splitlines()[0]) for text in said]
                worst = {name: max(row[name] for row in found) for name in found[0]}
                weights, gradients, optimizer = formula(stage, ranks, dtype)
                row = {
                    "dtype": dtype,
                    "processes": ranks,
                    "zero": stage,
                    **{name: round(value, 2) for name, value in worst.items()},
                    "formula": [weights, gradients, optimizer],
                }
                results.append(row)
                print(json.dumps(row), flush=True)
    RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
