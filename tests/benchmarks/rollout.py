"""Tokens a second of our sampler and of Transformers' generate, on one model and the same prompts, turn about.

    OMP_NUM_THREADS=2 python tests/benchmarks/rollout.py
    OMP_NUM_THREADS=2 python tests/benchmarks/rollout.py --model FOLDER --prompts 64 --new-tokens 64

With a model of one's own Transformers has it as its own loader gives it, and we as ours does. Random weights end a
response with probability 1 / vocabulary at each token, so most run to the limit; `--ending` raises the end token's
logit to give mixed lengths.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlhf.config import ModelConfig, RolloutConfig
from rlhf.models.load import load_causal_lm
from rlhf.ppo.rollout import generate

PAD, EOS, VOCAB = 0, 2, 1024


def build(ending: float) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            pad_token_id=PAD,
            eos_token_id=EOS,
        )
    ).eval()
    head = torch.nn.Linear(128, VOCAB)
    head.weight, head.bias = model.lm_head.weight, torch.nn.Parameter(torch.zeros(VOCAB))
    with torch.no_grad():
        head.bias[EOS] = ending
    model.lm_head = head
    return model


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 61, (count,), generator=generator).tolist()
    return [torch.randint(3, VOCAB, (n,), generator=generator).tolist() for n in lengths]


def end_of(model: PreTrainedModel) -> int:
    end = model.generation_config.eos_token_id
    return end[0] if isinstance(end, list) else end


def ours(model: PreTrainedModel, ids: list[list[int]], new_tokens: int) -> int:
    config = RolloutConfig(max_new_tokens=new_tokens)
    rollout = generate(model, ids, eos_token_id=end_of(model), config=config, generator_seed=0)
    return sum(map(len, rollout.response_ids))


@torch.no_grad()
def theirs(model: PreTrainedModel, ids: list[list[int]], new_tokens: int) -> int:
    end, width = end_of(model), max(map(len, ids))
    padded = torch.tensor([[PAD] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    torch.manual_seed(0)
    output = model.generate(
        input_ids=padded,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=new_tokens,
        eos_token_id=end,
        pad_token_id=PAD,
    )
    rows = output[:, width:].tolist()
    return sum(row.index(end) + 1 if end in row else len(row) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--ending", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", help="a model's folder, in place of a small one with random weights")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    models: dict[str, PreTrainedModel] = dict.fromkeys(("ours", "generate"), build(args.ending))
    if args.model is not None:
        models = {
            "ours": load_causal_lm(args.model, ModelConfig(attn_implementation="eager")).eval(),
            "generate": AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval(),
        }
    ids = prompts(args.prompts)
    rates: dict[str, list[float]] = {"ours": [], "generate": []}
    runs: dict[str, Callable[[PreTrainedModel, list[list[int]], int], int]] = {"ours": ours, "generate": theirs}
    tokens = dict.fromkeys(runs, 0)
    for repeat in range(args.repeats + 1):
        for name, sample in runs.items():
            started = time.perf_counter()
            tokens[name] = sample(models[name], ids, args.new_tokens)
            if repeat > 0:  # the first pass builds kernels
                rates[name].append(tokens[name] / (time.perf_counter() - started))
    for name, found in rates.items():
        print(f"{name:9s} {statistics.median(found):9.0f} tokens/s  ({tokens[name] / len(ids):.1f} tokens a response)")
    print(f"ratio     {statistics.median(rates['ours']) / statistics.median(rates['generate']):9.2f}")


if __name__ == "__main__":
    main()
