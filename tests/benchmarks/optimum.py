"""PPO against an optimum that is known: a space of responses small enough to write all of them down.

    make optimum                                            # five coefficients
    python tests/benchmarks/optimum.py --betas 0.5          # one

The vocabulary is 15 letters and an end token; a response is up to three of them, which makes 3616 for each prompt. Each
has its reward in a table: the sum of what its neighbouring pairs of symbols are worth, which was drawn at random and
scaled to a standard deviation of 1 under the reference. `python -m rlhf stage=ppo` maximises it with a KL penalty of
weight beta. The best policy there is then is known,

    pi*(y|x) = reference(y|x) exp(r(x, y) / beta) / Z(x)       (arXiv:1805.00909, section 2.3; arXiv:2305.18290, eq. 4)

and so are its reward and its KL. What PPO ended with is not sampled but computed, from the logits of the model it saved
at every prefix of every response. Nothing of PPO is repeated here: it is the command, with a reward function of one's
own in the folder where it is started.

The relative error of the KL is |KL - KL*| / KL*; that of the reward is taken of what is won over the reference's mean
reward, |gain - gain*| / gain*. Both exact values are above 0 at every beta (0.02 nats and 0.2 at least) and need no
floor.

Why this should end at the optimum: with gamma and lambda 1 the advantage is what the response still earns, KL included,
less a baseline, so that the expected gradient is that of reward - beta KL; a response that is cut is not penalised, no
score is cut, values are not clipped; whitening changes the length of a step only; and both learning rates fall to 0, so
that Adam's noise and the ratios' distance from 1 go with them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlhf.chain.source import load_source
from rlhf.config import DataConfig, DataSourceName
from rlhf.data.records import Split

ROOT = Path(__file__).resolve().parents[2]
BETAS = (0.05, 0.15, 0.5, 1.5, 5.0)
MIDDLE = 0.5
LETTERS = "abcdefghijklmno"
END = len(LETTERS)  # its id; the letters' are 0 to 14
LENGTH = 3
HELD_OUT = 0.75  # share of the 15 prompts, which nothing here looks at
ITERATIONS = 250
BATCH = 1024
SETTINGS = {
    "num_minibatches": 2,
    "epochs": 2,
    "optim.lr": 2e-3,
    "optim.min_lr_ratio": 0.0,
    "value_optim.lr": 3e-3,
    "value_optim.min_lr_ratio": 0.0,
    "gae_lambda": 1.0,
    "value_clip_range": 0.0,
    "missing_eos_penalty": 0.0,
    "evaluate_every": 0,
}

# Above this coefficient the best policy is a slight tilt of the reference, less than what a second pass over the same
# 1024 responses learns of their luck: one pass, more batches, and the average of the policy.
STRONG = 1.0
STRONG_ITERATIONS = 2 * ITERATIONS
STRONG_SETTINGS = {"epochs": 1, "optim.lr": 1.5e-3, "ema_decay": 0.98}

REWARD_FN = '''"""The reward of every response to every prompt, from a table."""

import json
from pathlib import Path

TABLE = json.loads(Path(__file__).with_name("reward.json").read_text())


def score(prompts, responses, records):
    return [TABLE[record.messages[-1].content][response] for record, response in zip(records, responses)]
'''


@dataclass(frozen=True)
class Row:
    """One coefficient: what is best, what PPO got."""

    beta: float
    gain_exact: float  # reward above the reference's, in standard deviations of the reward under the reference
    gain: float
    gain_error: float
    kl_exact: float  # nats a response
    kl: float
    kl_error: float
    total_variation: float  # between PPO's policy and the best one, mean over prompts
    objective_share: float  # reward gain - beta KL, PPO's over the best
    seconds: float


@dataclass(frozen=True)
class Results:
    rows: list[Row]
    reference: Tensor  # (prompts, responses) log-probs, float64
    rewards: Tensor  # (prompts, responses)

    @property
    def max_relative_error(self) -> float:
        return max(error for row in self.rows for error in (row.gain_error, row.kl_error))


def responses() -> list[list[int]]:
    """Every response as ids: what ends with the end token within LENGTH, and what is cut there."""
    done: list[list[int]] = []
    prefixes: list[list[int]] = [[]]
    for _ in range(LENGTH):
        done += [[*prefix, END] for prefix in prefixes]
        prefixes = [[*prefix, letter] for prefix in prefixes for letter in range(END)]
    return done + prefixes


def text(response: Sequence[int]) -> str:
    return "".join(LETTERS[i] for i in response if i != END)


def training_prompts(folder: Path) -> list[str]:
    """The letters that the stage trains on; the others it holds out."""
    data = DataConfig(DataSourceName.jsonl, str(folder / "prompts.jsonl"), evaluation_fraction=HELD_OUT)
    return [prompt.messages[-1].content for prompt in load_source(data, seed=0).prompts(Split.train)]


@torch.no_grad()
def logprobs(folder: Path, prompts: Sequence[str]) -> Tensor:
    """log probability of every response to every prompt under a saved model, (prompts, responses) float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    every = responses()
    ids = torch.tensor([response + [0] * (LENGTH - len(response)) for response in every])
    mask = torch.tensor([[t < len(response) for t in range(LENGTH)] for response in every])
    rows = []
    for prompt in prompts:
        start = torch.full((len(every), 1), LETTERS.index(prompt))
        logits = model(input_ids=torch.cat([start, ids[:, :-1]], dim=1)).logits
        each = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        rows.append(each.where(mask, 0.0).sum(-1))
    return torch.stack(rows)


def best(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log pi*, like `reference` and `rewards` (prompts, responses)."""
    return (reference + rewards / beta).log_softmax(-1)


def gain_and_kl(policy: Tensor, reference: Tensor, rewards: Tensor) -> tuple[float, float]:
    """Mean reward above the reference's, and KL(policy || reference) in nats, both means over prompts."""
    weights = policy.exp()
    gain = ((weights - reference.exp()) * rewards).sum(-1).mean()
    return float(gain), float((weights * (policy - reference)).sum(-1).mean())


def build(folder: Path, seed: int) -> tuple[Tensor, Tensor, list[str]]:
    """Writes reference model, prompts, reward table and reward function; the reference's log-probs, rewards, prompts.

    Every neighbouring pair of symbols, the prompt being the first, is worth a random amount: what a letter is worth
    depends on the one before it and on what may follow, so that the best first letter is not the one that pays most.
    """
    folder.mkdir(parents=True)
    save_reference(folder / "reference", seed)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": x, "response": x}) + "\n" for x in LETTERS))
    prompts = training_prompts(folder)
    reference = logprobs(folder / "reference", prompts)

    pairs = torch.randn(END, END + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    every = responses()
    table = torch.tensor(
        [[sum(float(pairs[a, b]) for a, b in pairwise([letter, *row])) for row in every] for letter in range(END)],
        dtype=torch.float64,
    )
    trained = table[[LETTERS.index(prompt) for prompt in prompts]]
    means = (reference.exp() * trained).sum(-1, keepdim=True)
    spread = float((reference.exp() * (trained - means).square()).sum(-1).mean().sqrt())
    table, trained = table / spread, trained / spread
    named = {
        letter: {text(response): value for response, value in zip(every, row.tolist(), strict=True)}
        for letter, row in zip(LETTERS, table, strict=True)
    }
    (folder / "reward.json").write_text(json.dumps(named))
    (folder / "table_reward.py").write_text(REWARD_FN)
    return reference, trained, prompts


def save_reference(folder: Path, seed: int) -> None:
    """A random Llama of 0.1 million weights that is far from uniform, and its tokenizer."""
    vocabulary = {symbol: i for i, symbol in enumerate([*LETTERS, "<end>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    wrapped.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1 + LENGTH,
        initializer_range=0.15,
        eos_token_id=END,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    wrapped.save_pretrained(folder)


def train(folder: Path, beta: float, iterations: int | None, seed: int) -> tuple[Path, float]:
    """Runs the stage as a user would; the trained policy's folder and the wall seconds it took.

    iterations: None takes those that this coefficient needs.
    """
    strong = beta > STRONG
    iterations = iterations or (STRONG_ITERATIONS if strong else ITERATIONS)
    words = {
        "stage": "ppo",
        "run.name": f"beta{beta:g}",
        "seed": seed,
        "model.path": "reference",
        "ppo.policy": "reference",
        "ppo.reward_fn": "table_reward:score",
        "ppo.kl.coef": beta,
        "data": "jsonl",
        "data.path": "prompts.jsonl",
        "data.evaluation_fraction": HELD_OUT,
        "rollout.max_new_tokens": LENGTH,
        "rollout.batch_size": BATCH,
        **{f"ppo.{key}": value for key, value in (SETTINGS | (STRONG_SETTINGS if strong else {})).items()},
        "ppo.batch_size": BATCH,
        "ppo.episodes": BATCH * iterations,
        "ppo.save_every": iterations,
        "tracker.progress": "false",
        "launch.device": "cpu",
        "launch.threads": 1,
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlhf", *(f"{key}={value}" for key, value in words.items())]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return folder / "runs" / f"beta{beta:g}" / "ppo" / "model", time.perf_counter() - started


def measure(policy: Tensor, reference: Tensor, rewards: Tensor, beta: float, seconds: float) -> Row:
    exact = best(reference, rewards, beta)
    gain_exact, kl_exact = gain_and_kl(exact, reference, rewards)
    gain, kl = gain_and_kl(policy, reference, rewards)
    return Row(
        beta,
        gain_exact,
        gain,
        abs(gain - gain_exact) / gain_exact,
        kl_exact,
        kl,
        abs(kl - kl_exact) / kl_exact,
        float(0.5 * (policy.exp() - exact.exp()).abs().sum(-1).mean()),
        (gain - beta * kl) / (gain_exact - beta * kl_exact),
        seconds,
    )


def run(
    folder: Path, betas: Sequence[float], *, iterations: int | None = None, seed: int = 0, jobs: int = 1
) -> Results:
    """Trains at every beta, `jobs` of them at a time, and measures what came out."""
    reference, rewards, prompts = build(folder, seed)

    def one(beta: float) -> Row:
        trained, seconds = train(folder, beta, iterations, seed)
        return measure(logprobs(trained, prompts), reference, rewards, beta, seconds)

    with ThreadPoolExecutor(jobs) as pool:
        rows = list(pool.map(one, betas))
    return Results(rows, reference, rewards)


def print_table(results: Results) -> None:
    print("        reward gain                KL, nats                  total       share of")
    print(" beta    best     PPO   error      best     PPO   error   variation   objective   seconds")
    for r in results.rows:
        print(
            f"{r.beta:5g}  {r.gain_exact:6.3f}  {r.gain:6.3f}  {r.gain_error:5.1%}    {r.kl_exact:6.4f}  {r.kl:6.4f}  "
            f"{r.kl_error:5.1%}   {r.total_variation:9.3f}   {r.objective_share:9.4f}   {r.seconds:7.0f}"
        )


def draw(results: Results, path: Path) -> None:
    """The best reward at every KL, and where PPO ended."""
    import matplotlib

    matplotlib.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot

    betas = torch.logspace(-2, 1.3, 200, dtype=torch.float64).tolist()
    curve = [
        gain_and_kl(best(results.reference, results.rewards, beta), results.reference, results.rewards)
        for beta in betas
    ]
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.plot([kl for _, kl in curve], [gain for gain, _ in curve], color="#6e6e6e", label="best there is, computed")
    rows = results.rows
    axes.plot(
        [r.kl_exact for r in rows], [r.gain_exact for r in rows], "o", color="#6e6e6e", fillstyle="none", markersize=10
    )
    axes.plot([r.kl for r in rows], [r.gain for r in rows], "^", color="#D55E00", label="PPO, computed from its policy")
    for r in rows:
        axes.annotate(f"$\\beta$ = {r.beta:g}", (r.kl, r.gain), (8, -10), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(right=60)  # room for the last labels
    axes.set_xlabel("KL from the reference, nats a response")
    axes.set_ylabel("reward above the reference's, standard deviations")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS))
    parser.add_argument("--iterations", type=int, help=f"{ITERATIONS}; above beta = {STRONG:g} {STRONG_ITERATIONS}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "optimum", help="made afresh")
    parser.add_argument("--plot", type=Path, default=None, help="PNG or SVG; FOLDER/optimum.png where not given")
    args = parser.parse_args()
    if args.folder.exists():
        shutil.rmtree(args.folder)
    started = time.perf_counter()
    results = run(args.folder, args.betas, iterations=args.iterations, seed=args.seed, jobs=args.jobs)
    print_table(results)
    plot = args.plot or args.folder / "optimum.png"
    draw(results, plot)
    print(f"\n{plot}")
    summary = {
        "max_relative_error": results.max_relative_error,
        "seconds": round(time.perf_counter() - started, 1),
        "iterations": args.iterations or [ITERATIONS, STRONG_ITERATIONS],
        "seed": args.seed,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "rows": [asdict(row) for row in results.rows],
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
