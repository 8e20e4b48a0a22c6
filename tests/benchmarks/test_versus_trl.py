"""What the benchmark assumes of its own workload and arithmetic; the timings are `make bench`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from tests.benchmarks.versus_trl import __main__ as benchmark
from tests.benchmarks.versus_trl import floor, scaling, workload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    workload.save_models(folder, 32, "mixed")
    return folder


def test_exponent_of_a_power_law_is_found() -> None:
    sizes = [16.0, 32.0, 64.0, 100.0]
    assert scaling.exponent(sizes, [0.3 * size**1.7 for size in sizes]) == pytest.approx(1.7)


def test_ratios_are_above_one_where_ours_is_better() -> None:
    rows = []
    for task in benchmark.UNITS:
        for side, precision in benchmark.SIDES:
            faster = 1.0 if side == "peer" else 2.0 if precision == "float32" else 3.0
            job = workload.Job(side, task, precision)
            reports = [{"seconds": 6 / faster, "units": 6.0, "peak_mb": 900.0 if side == "peer" else 600.0}]
            rows.append(benchmark.summary_of(job, reports))
    found = benchmark.ratios(rows)
    assert {found[f"{task}_float32"] for task in benchmark.UNITS} == {2.0}
    assert {found[f"{task}_default"] for task in benchmark.TRAININGS} == {3.0}
    assert (found["rollout"], found["memory"]) == (3.0, 1.5)


def test_end_token_is_as_likely_as_stated(folder: Path) -> None:
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    with torch.no_grad():
        chances = policy(torch.tensor(workload.prompts(4, seed=5)[0])[None]).logits.softmax(-1)[..., workload.END]
    assert float(chances.mean()) == pytest.approx(workload.END_CHANCE["mixed"], rel=0.3)


def test_texts_are_the_ids_they_were_made_from(folder: Path) -> None:
    tokenizer = workload.tokenizer()
    ids = workload.prompts(1)[0]
    assert tokenizer(workload.text(ids)).input_ids == ids


def test_floor_computes_the_logits_of_the_library(folder: Path) -> None:
    rows = workload.prompts(5)
    flat = floor.flatten(rows)
    model = floor.Llama(folder / "policy", "lm_head.weight")
    library = AutoModelForCausalLM.from_pretrained(folder / "policy")
    with torch.no_grad():
        logits = F.linear(model.hidden(flat), model.weights["head"])
        for row, start in zip(flat.order, flat.starts, strict=True):
            expected = library(torch.tensor([rows[row]])).logits[0]
            torch.testing.assert_close(logits[start : start + len(rows[row])], expected, atol=1e-5, rtol=1e-5)


def test_floor_samples_what_its_forward_pass_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The likeliest token each time in place of a drawn one, so that the steps with a cache can be compared.
    monkeypatch.setattr(torch.Tensor, "multinomial", lambda self, count: self.argmax(-1, keepdim=True))
    model = floor.Llama(folder / "policy", "lm_head.weight")
    library = AutoModelForCausalLM.from_pretrained(folder / "policy")
    prompts = workload.prompts(4)
    for prompt, response in zip(prompts, model.generate(prompts, 6), strict=True):
        with torch.no_grad():
            logits = library(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == response
