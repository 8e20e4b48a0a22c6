"""What is tested on tiny models, on a real one: 134.5 million weights and a vocabulary of 49,152.

`make test-real` makes the model (two minutes) and runs these (some minutes on two cores); without the folder they are
skipped. RLHF_REAL_MODELS names another folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf.chain.runner import run
from rlhf.cli import compose, main
from rlhf.config import ModelConfig, RolloutConfig
from rlhf.data.templates import ChatTemplate
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.rollout import generate
from tests.real.make import NAME

FOLDER = Path(os.environ.get("RLHF_REAL_MODELS", Path(__file__).parent / "models")) / NAME
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.exists(), reason=f"no {FOLDER}; `make test-real` makes it"),
]
WORDS = ["red", "blue", "green", "seven", "tree", "house"]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_causal_lm(str(FOLDER), ModelConfig(attn_implementation="eager")).eval()


def rows(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"Say the word {WORDS[i % 6]} {i}.", "response": f"{WORDS[i % 6]}!"} for i in range(count)]


def chain(tmp_path: Path, *words: str) -> dict[str, Any]:
    """Runs one stage in `tmp_path` and gives its manifest."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
    stage = next(word for word in words if word.startswith("stage="))
    settings = (f"run.root={tmp_path / 'runs'}", "run.name=real", f"data.cache={tmp_path / 'cache'}")
    typed = compose.with_data_path([*words, *settings, f"data={data}", f"model.path={FOLDER}"])
    typed = compose.debug_last(compose.with_model_group([compose.normalise(word) for word in typed]))
    (job,) = compose.expand(main._parse(typed))
    run(job.config)
    return json.loads((tmp_path / "runs" / "real" / stage.removeprefix("stage=") / "manifest.json").read_text())


def test_what_is_sampled_has_the_log_probs_of_a_plain_forward(model: Any) -> None:
    tokenizer = load_tokenizer(str(FOLDER))
    template = ChatTemplate(tokenizer)
    prompts = [tokenizer(f"Say the word {word}.").input_ids for word in WORDS]
    end = template.tokenizer.eos_token_id
    config = RolloutConfig(max_new_tokens=12, temperature=0.8)
    drawn = generate(model, prompts, eos_token_id=end, config=config, generator_seed=0, logprobs=True)
    assert drawn.logprobs is not None
    for prompt, response, said in zip(prompts, drawn.response_ids, drawn.logprobs, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float() / 0.8
        plain = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(said), plain, atol=2e-3, rtol=0)


def test_sft_learns_and_ppo_begins_where_it_ended(tmp_path: Path) -> None:
    sft = chain(tmp_path, "stage=sft", "sft.epochs=2", "sft.batch_size=16", "sft.optim.lr=1e-5")
    log = (tmp_path / "runs" / "real" / "sft" / "metrics.jsonl").read_text().splitlines()
    losses = [row["eval/loss"] for row in map(json.loads, log) if "eval/loss" in row]
    assert losses[-1] < losses[0]
    assert sft["metrics"]["eval/loss"] < 1.0
    (tmp_path / "reward.py").write_text(
        "def score(prompts, responses, records):\n    return [float(-len(response)) for response in responses]\n"
    )
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        ppo = chain(
            tmp_path,
            *("stage=ppo", "ppo.reward_fn=reward:score", "ppo.advantage=rloo", "ppo.samples_per_prompt=2"),
            *("ppo.episodes=32", "ppo.batch_size=16", "ppo.num_minibatches=1", "ppo.epochs=1", "ppo.optim.lr=1e-6"),
            *("rollout.max_new_tokens=12", "ppo.evaluate_every=0", "ppo.kl.coef=0.05"),
        )
    finally:
        os.chdir(before)
    log = (tmp_path / "runs" / "real" / "ppo" / "metrics.jsonl").read_text().splitlines()
    first = json.loads(log[0])
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-3)
    assert ppo["status"] == "complete"
    saved = [tmp_path / "runs" / "real" / stage / "model" / "model.safetensors" for stage in ("ppo", "sft")]
    moved, start = (load_file(path) for path in saved)
    assert any(not torch.equal(moved[name], start[name]) for name in start)
