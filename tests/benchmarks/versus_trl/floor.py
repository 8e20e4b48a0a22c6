"""The floor: the same work by hand, on the same weights, with nothing that is not needed for the result.

Tokens of all rows lie one behind the other for the linear layers, rows of like length share an attention product,
logits are made where a response token is predicted, each model runs once. No library's modules, masks, hooks, metrics,
checks or records. Before anything is timed the logits are compared with Transformers'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from rlhf.rl.gae import gae
from rlhf.rl.kway import kway_loss
from rlhf.rl.whitening import whiten
from tests.benchmarks.versus_trl import workload
from tests.benchmarks.versus_trl.gate import Gate
from tests.benchmarks.versus_trl.trainer_gate import STEPS_AN_ITERATION
from tests.benchmarks.versus_trl.workload import Job

HEADS = workload.HEADS
EPSILON = 1e-6  # LlamaConfig's
WIDTH_MULTIPLE = 8
TOKEN_MULTIPLE = 64  # oneDNN builds a kernel for each new shape
DROP_FINISHED_AT = 0.2
KL_COEF, CLIP_RANGE, GAE_LAMBDA = 0.05, 0.2, 0.95


@dataclass(frozen=True)
class Flat:
    """Rows sorted by length; those whose length rounds up to the same width are one block, and blocks are joined."""

    ids: Tensor  # (tokens,)
    positions: Tensor  # (tokens,)
    blocks: list[tuple[int, int]]  # rows, width
    order: list[int]  # which row each is
    starts: list[int]  # where each begins in ids


def flatten(rows: Sequence[Sequence[int]]) -> Flat:
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    ids: list[int] = []
    positions: list[int] = []
    blocks: list[tuple[int, int]] = []
    starts = []
    for i in order:
        width = -(-len(rows[i]) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        if blocks and blocks[-1][1] == width:
            blocks[-1] = (blocks[-1][0] + 1, width)
        else:
            blocks.append((1, width))
        starts.append(len(ids))
        ids += [*rows[i], *[0] * (width - len(rows[i]))]
        positions += range(width)
    fill = -len(ids) % TOKEN_MULTIPLE
    if fill:
        blocks.append((1, fill))
        ids += [0] * fill
        positions += range(fill)
    return Flat(torch.tensor(ids), torch.tensor(positions), blocks, order, starts)


class Llama:
    """Weights, fused where they read the same input, and the forward pass."""

    def __init__(self, folder: Path, head: str, *, train: bool = False) -> None:
        stored = load_file(folder / "model.safetensors")
        self.head_name = head
        self.weights: dict[str, Tensor] = {
            "embedding": stored["model.embed_tokens.weight"],
            "norm": stored["model.norm.weight"],
            "head": stored[head] if head in stored else torch.zeros(1, stored["model.norm.weight"].numel()),
        }
        for n in range(workload.LAYERS):
            part = {name.split(f"layers.{n}.", 1)[1]: w for name, w in stored.items() if f".layers.{n}." in name}
            self.weights |= {
                f"{n}.attention_norm": part["input_layernorm.weight"],
                f"{n}.qkv": torch.cat([part[f"self_attn.{name}_proj.weight"] for name in "qkv"]),
                f"{n}.o": part["self_attn.o_proj.weight"],
                f"{n}.mlp_norm": part["post_attention_layernorm.weight"],
                f"{n}.gate_up": torch.cat([part["mlp.gate_proj.weight"], part["mlp.up_proj.weight"]]),
                f"{n}.down": part["mlp.down_proj.weight"],
            }
        self.weights = {name: w.clone().requires_grad_(train) for name, w in self.weights.items()}
        self.width = self.weights["norm"].numel()
        half = self.width // HEADS // 2
        angles = torch.arange(workload.CONTEXT)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.cosine, self.sine = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
        masked = torch.full((workload.CONTEXT, workload.CONTEXT), -torch.inf)
        self.causal = masked.triu(1)
        if train:
            self.optimizer = torch.optim.AdamW(
                self.weights.values(), lr=workload.LEARNING_RATE, weight_decay=0.0, fused=True
            )

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def hidden(self, flat: Flat, keep: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """(tokens, hidden) after the last norm; keys and values of each layer are added to `keep`."""
        w, depth = self.weights, self.width // HEADS
        cosine, sine = self.cosine[flat.positions][:, None], self.sine[flat.positions][:, None]
        sizes = [rows * width for rows, width in flat.blocks]
        x = F.embedding(flat.ids, w["embedding"])
        for n in range(workload.LAYERS):
            query, key, value = F.linear(_norm(x, w[f"{n}.attention_norm"]), w[f"{n}.qkv"]).chunk(3, -1)
            query, key, value = (t.view(-1, HEADS, depth) for t in (query, key, value))
            query, key = (t * cosine + _turned(t) * sine for t in (query, key))
            if keep is not None:
                keep.append((key, value))
            attended = []
            for (rows, width), q, k, v in zip(
                flat.blocks, query.split(sizes), key.split(sizes), value.split(sizes), strict=True
            ):
                q, k, v = (
                    t.view(rows, width, HEADS, depth).transpose(1, 2).reshape(-1, width, depth) for t in (q, k, v)
                )
                scores = torch.baddbmm(self.causal[:width, :width], q, k.transpose(1, 2), alpha=depth**-0.5)
                mixed = (scores.softmax(-1) @ v).view(rows, HEADS, width, depth)
                attended.append(mixed.transpose(1, 2).reshape(-1, self.width))
            x = x + F.linear(torch.cat(attended), w[f"{n}.o"])
            x = x + self._mlp(x, n)
        return _norm(x, w["norm"])

    def _mlp(self, x: Tensor, n: int) -> Tensor:
        gate, up = F.linear(_norm(x, self.weights[f"{n}.mlp_norm"]), self.weights[f"{n}.gate_up"]).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.weights[f"{n}.down"])

    def at(self, hidden: Tensor, places: Tensor) -> Tensor:
        """The head's output at these tokens."""
        fill = places.new_zeros(-len(places) % TOKEN_MULTIPLE)
        return F.linear(hidden[torch.cat([places, fill])], self.weights["head"])[: len(places)]

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """Sampled responses, their end token included."""
        w, depth = self.weights, self.width // HEADS
        flat = flatten(prompts)
        kept: list[tuple[Tensor, Tensor]] = []
        hidden = self.hidden(flat, kept)
        lengths = torch.tensor([len(prompts[i]) for i in flat.order])
        starts = torch.tensor(flat.starts)
        longest = int(lengths.max())
        # Rows end at one column, so that every step writes one.
        caches = []
        column = torch.arange(longest)
        source = starts[:, None] + column - (longest - lengths)[:, None]
        inside = column >= (longest - lengths)[:, None]
        for key, value in kept:
            buffers = []
            for flat_states in (key, value):
                buffer = torch.zeros(len(prompts), longest + new_tokens, HEADS, depth)
                buffer[:, :longest] = flat_states[source.clamp(min=0)].where(inside[:, :, None, None], 0.0)
                buffers.append(buffer.transpose(1, 2).contiguous())
            caches.append(buffers)
        bias = torch.where(torch.arange(longest + new_tokens) >= (longest - lengths)[:, None], 0.0, -torch.inf)
        rows = torch.arange(len(prompts))
        sampled = torch.full((len(prompts), new_tokens), workload.END)
        finished = torch.zeros(len(prompts), dtype=torch.bool)
        last = hidden[starts + lengths - 1]
        for step in range(new_tokens):
            tokens = F.linear(last, w["head"]).softmax(-1).multinomial(1)[:, 0]
            sampled[rows, step] = tokens
            finished |= tokens == workload.END
            if finished.all() or step + 1 == new_tokens:
                break
            if finished.sum() >= DROP_FINISHED_AT * len(rows):
                rows, tokens, lengths, bias = (t[~finished] for t in (rows, tokens, lengths, bias))
                caches = [[buffer[~finished] for buffer in pair] for pair in caches]
                finished = finished[~finished]
            end = longest + step + 1
            positions = lengths + step
            cosine, sine = self.cosine[positions][:, None], self.sine[positions][:, None]
            x = F.embedding(tokens, w["embedding"])
            for n, (keys, values) in enumerate(caches):
                query, key, value = F.linear(_norm(x, w[f"{n}.attention_norm"]), w[f"{n}.qkv"]).chunk(3, -1)
                query, key, value = (t.view(-1, HEADS, depth) for t in (query, key, value))
                query, key = (t * cosine + _turned(t) * sine for t in (query, key))
                keys[:, :, end - 1], values[:, :, end - 1] = key, value
                scores = (keys[:, :, :end] @ query[..., None])[..., 0] * depth**-0.5 + bias[:, None, :end]
                mixed = (scores.softmax(-1)[:, :, None] @ values[:, :, :end]).flatten(1)
                x = x + F.linear(mixed, w[f"{n}.o"])
                x = x + self._mlp(x, n)
            last = _norm(x, w["norm"])
        responses: list[list[int]] = [[] for _ in prompts]
        for row, ids in zip(flat.order, sampled.tolist(), strict=True):
            responses[row] = ids[: ids.index(workload.END) + 1] if workload.END in ids else ids
        return responses


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, EPSILON)


def _turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _prepare(job: Job, root: Path) -> Path:
    torch.set_float32_matmul_precision("highest" if job.precision == "float32" else "medium")
    folder = workload.folder_of(root, job)
    rows = workload.prompts(8)
    flat = flatten(rows)
    with torch.no_grad():
        model = Llama(folder / "policy", "lm_head.weight")
        logits = F.linear(model.hidden(flat), model.weights["head"])
        library = AutoModelForCausalLM.from_pretrained(folder / "policy")
        for row, start in zip(flat.order, flat.starts, strict=True):
            expected = library(torch.tensor([rows[row]])).logits[0]
            torch.testing.assert_close(logits[start : start + len(rows[row])], expected, atol=1e-5, rtol=1e-5)
    return folder


def rollout(job: Job, root: Path, gate: Gate) -> None:
    policy = Llama(_prepare(job, root) / "policy", "lm_head.weight")
    gate.done()
    seed = 0
    while True:
        responses = policy.generate(workload.prompts(job.batch, seed), job.new_tokens)
        seed += 1
        gate.done(sum(map(len, responses)))


def ppo(job: Job, root: Path, gate: Gate) -> None:
    folder = _prepare(job, root)
    policy = Llama(folder / "policy", "lm_head.weight", train=True)
    reference = Llama(folder / "policy", "lm_head.weight")
    value_model = Llama(folder / "reward_model", "score.weight", train=True)
    reward_model = Llama(folder / "reward_model", "score.weight")
    gate.done()
    seed = 0
    while True:
        prompts = workload.prompts(job.batch, seed)
        seed += 1
        responses = policy.generate(prompts, job.new_tokens)
        whole = flatten([[*p, *r] for p, r in zip(prompts, responses, strict=True)])
        with torch.no_grad():
            ends = torch.tensor([s + len(prompts[i]) + len(responses[i]) - 1 for i, s in _rows(whole)])
            scores = torch.zeros(job.batch)
            scores[torch.tensor(whole.order)] = reward_model.at(reward_model.hidden(whole), ends)[:, 0]
        inputs = flatten([[*p, *r[:-1]] for p, r in zip(prompts, responses, strict=True)])
        places = torch.tensor([s + len(prompts[i]) - 1 + t for i, s in _rows(inputs) for t in range(len(responses[i]))])
        tokens = torch.tensor([token for i, _ in _rows(inputs) for token in responses[i]])
        lengths = torch.tensor([len(responses[i]) for i, _ in _rows(inputs)])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        with torch.no_grad():
            old, before = (
                -F.cross_entropy(m.at(m.hidden(inputs), places), tokens, reduction="none") for m in (policy, reference)
            )
            old_values = value_model.at(value_model.hidden(inputs), places)[:, 0]
            rewards, values = torch.zeros(mask.shape), torch.zeros(mask.shape)
            rewards[mask], values[mask] = -KL_COEF * (old - before), old_values
            rewards[torch.arange(job.batch), lengths - 1] += scores[torch.tensor(inputs.order)]
            estimated = gae(rewards, values, mask, gamma=1.0, gae_lambda=GAE_LAMBDA)
            returns = (estimated + values)[mask]
            advantages = whiten(estimated, mask)[mask]
        for _ in range(workload.PPO_EPOCHS):
            logits = policy.at(policy.hidden(inputs), places)
            ratio = (-F.cross_entropy(logits, tokens, reduction="none") - old).exp()
            clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
            (-torch.minimum(ratio * advantages, clipped * advantages).mean()).backward()
            policy.step()
            now = value_model.at(value_model.hidden(inputs), places)[:, 0]
            near = old_values + (now - old_values).clamp(-CLIP_RANGE, CLIP_RANGE)
            (0.5 * torch.maximum((now - returns).square(), (near - returns).square()).mean()).backward()
            value_model.step()
        gate.done(1.0, response_tokens=len(tokens) / job.batch)


def _rows(flat: Flat) -> list[tuple[int, int]]:
    return list(zip(flat.order, flat.starts, strict=True))


def reward(job: Job, root: Path, gate: Gate) -> None:
    model = Llama(_prepare(job, root) / "policy", "score.weight", train=True)
    rankings = workload.rankings(2048, job.lengths)
    ranks = torch.arange(workload.COMPLETIONS).expand(workload.REWARD_BATCH, -1)
    gate.done()
    done = 0
    while True:
        for _ in range(STEPS_AN_ITERATION["reward"]):
            batch = [rankings[(done + i) % len(rankings)] for i in range(workload.REWARD_BATCH)]
            done += len(batch)
            rows = [[*prompt, *completion, workload.END] for prompt, completions in batch for completion in completions]
            flat = flatten(rows)
            ends = torch.tensor([s + len(rows[i]) - 1 for i, s in _rows(flat)])
            scores = torch.zeros(len(rows)).index_put(
                (torch.tensor(flat.order),), model.at(model.hidden(flat), ends)[:, 0]
            )
            kway_loss(scores.view(ranks.shape), ranks, torch.ones(ranks.shape, dtype=torch.bool)).backward()
            model.step()
        gate.done(STEPS_AN_ITERATION["reward"] * workload.REWARD_BATCH)


def sft(job: Job, root: Path, gate: Gate) -> None:
    model = Llama(_prepare(job, root) / "policy", "lm_head.weight", train=True)
    demonstrations = workload.demonstrations(3200, job.lengths)
    gate.done()
    done = 0
    while True:
        trained = 0
        for _ in range(STEPS_AN_ITERATION["sft"]):
            batch = [demonstrations[(done + i) % len(demonstrations)] for i in range(workload.SFT_BATCH)]
            done += len(batch)
            flat = flatten([[*prompt, *response, workload.END] for prompt, response in batch])
            places = [s + len(batch[i][0]) - 1 + t for i, s in _rows(flat) for t in range(len(batch[i][1]) + 1)]
            targets = [token for i, _ in _rows(flat) for token in [*batch[i][1], workload.END]]
            F.cross_entropy(model.at(model.hidden(flat), torch.tensor(places)), torch.tensor(targets)).backward()
            model.step()
            trained += sum(len(prompt) + len(response) + 1 for prompt, response in batch)
        gate.done(trained)
