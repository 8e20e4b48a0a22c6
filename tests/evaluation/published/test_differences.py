from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu import corpus_bleu

from rlhf.config import TextMetric
from rlhf.evaluation.published.differences import summarise
from rlhf.evaluation.published.samples import read
from rlhf.evaluation.statistics.win_rates import Bootstrap
from tests.support.published_tables import of_models, table, write

SHARED = Path("/work/shared/data/instructgpt")
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real files are not on this machine")


def summary(path: Path, metric: TextMetric = TextMetric.accuracy, bootstrap_samples: int = 400) -> dict[str, Any]:
    return summarise(read(str(path), metric), metric, bootstrap_samples=bootstrap_samples, seed=0)


def answers(right: int, of: int = 40) -> list[str]:
    """The first `right` of them are right, so that a worse model is right only where a better one is."""
    return ["yes" if place < right else "no" for place in range(of)]


@pytest.fixture
def sized(tmp_path: Path) -> Path:
    samples = {
        "gpt-xl": answers(32),
        "ppo-ptx-xl": answers(28),
        "ppo-noptx-xl": answers(20),
        "gpt-6b": answers(36),
        "ppo-ptx-6b": answers(36),
        "ppo-noptx-6b": answers(24),
    }
    return of_models(tmp_path / "s.csv", samples, ["yes"] * 40, "fewshot")


def test_the_tax_and_what_is_won_back_are_differences_of_one_size(sized: Path) -> None:
    found = summary(sized)
    rows = {(row["a"], row["b"]): row for row in found["differences"]}
    assert list(rows) == [
        ("ppo-noptx-xl", "gpt-xl"),
        ("ppo-noptx-6b", "gpt-6b"),
        ("ppo-ptx-xl", "ppo-noptx-xl"),
        ("ppo-ptx-6b", "ppo-noptx-6b"),
        ("ppo-ptx-xl", "gpt-xl"),
        ("ppo-ptx-6b", "gpt-6b"),
    ]
    assert rows["ppo-noptx-xl", "gpt-xl"]["difference"] == pytest.approx(-30)
    assert rows["ppo-ptx-6b", "ppo-noptx-6b"]["difference"] == pytest.approx(30)
    assert all((row["prompt_type"], row["metric"], row["n"]) == ("fewshot", "accuracy", 40) for row in rows.values())
    tax = next(row for row in found["overall"] if (row["a"], row["b"]) == ("ppo-noptx", "gpt"))
    assert (tax["difference"], tax["cells"]) == (pytest.approx(-30), 2)
    left = next(row for row in found["overall"] if (row["a"], row["b"]) == ("ppo-ptx", "gpt"))
    assert (left["difference"], left["lowest"], left["highest"]) == (pytest.approx(-5), pytest.approx(-10), 0)


def test_intervals_of_differences_are_paired(sized: Path) -> None:
    found = summary(sized)
    row = next(row for row in found["differences"] if row["a"] == "ppo-ptx-xl" and row["b"] == "gpt-xl")
    cells = {cell["model_type"]: cell["accuracy_ci"] for cell in found["cells"]}
    width = row["ci"][1] - row["ci"][0]
    # They differ on 4 of 40 prompts: the standard error is that of a share of 0.1.
    assert width == pytest.approx(100 * 2 * 1.96 * np.sqrt(0.1 * 0.9 / 40), rel=0.2)
    assert width < cells["gpt-xl"][1] - cells["gpt-xl"][0]
    same = next(row for row in found["differences"] if row["a"] == "ppo-ptx-6b" and row["b"] == "gpt-6b")
    assert (same["difference"], same["ci"]) == (0, [0, 0])


def test_a_corpus_difference_is_computed_anew_for_each_draw(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["the", "a", "red", "blue", "boat", "house", "sits", "runs", "near", "old", "small", "by", "it", "here"]
    references = [" ".join(rng.choice(words) for _ in range(12)) for _ in range(12)]
    worse = [" ".join(w if rng.random() < 0.7 else "x" for w in text.split()) for text in references]
    better = [" ".join(w if rng.random() < 0.9 else "x" for w in text.split()) for text in references]
    found = summary(of_models(tmp_path / "s.csv", {"b": better, "a": worse}, references), TextMetric.bleu, 60)
    (row,) = found["differences"]

    def bleu(samples: list[str], counts: np.ndarray) -> float:
        rows = np.repeat(np.arange(12), counts)
        return corpus_bleu([samples[i] for i in rows], [[references[i] for i in rows]]).score

    once = np.ones(12, dtype=int)
    assert row["difference"] == pytest.approx(bleu(worse, once) - bleu(better, once))
    drawn = [bleu(worse, draw) - bleu(better, draw) for draw in Bootstrap(12, samples=60, seed=0).draws()]
    assert row["ci"] == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])))


def test_only_contexts_that_both_have_are_compared_whatever_their_order(tmp_path: Path) -> None:
    rows = [{"model_type": "one", "context": f"p{i}", "ref_text": "yes", "sample": "yes"} for i in range(6)]
    of_two = {"p7": "yes", "p3": "no", "p1": "yes", "p0": "no"}
    rows += [
        {"model_type": "two", "context": context, "ref_text": "yes", "sample": sample}
        for context, sample in of_two.items()
    ]
    found = summary(write(tmp_path / "s.csv", rows))
    (row,) = found["differences"]
    assert (row["n"], row["difference"]) == (3, pytest.approx(-200 / 3))
    rows = [row for row in rows if row["model_type"] == "one" or row["context"] == "p7"]
    assert summary(write(tmp_path / "s.csv", rows))["differences"] == []


def test_models_without_sizes_are_compared_with_the_first(tmp_path: Path) -> None:
    samples = {"x": answers(20), "y": answers(10), "z": answers(30)}
    found = summary(of_models(tmp_path / "s.csv", samples, ["yes"] * 40))
    assert [(row["a"], row["b"], round(row["difference"])) for row in found["differences"]] == [
        ("y", "x", -25),
        ("z", "x", 25),
    ]
    assert all("prompt_type" not in row for row in found["differences"])


def test_the_statement_says_who_is_better_only_where_the_interval_does(tmp_path: Path, sized: Path) -> None:
    found = summary(sized)
    assert found["statement"].startswith("ppo-noptx lies 30.0 accuracy below gpt [")
    assert "; pretraining gradients win back 25.0 [" in found["statement"]
    assert found["basis"].startswith("Differences are on the same 40 contexts, means over 2 sizes; ")
    found = summary(of_models(tmp_path / "s.csv", {"x": answers(20), "y": answers(21)}, ["yes"] * 40))
    assert found["statement"].startswith("y and x cannot be told apart (+2.5 accuracy [0.0, ")
    found = summary(of_models(tmp_path / "s.csv", {"x": answers(20), "y": answers(35)}, ["yes"] * 40))
    assert found["statement"].startswith("y lies 37.5 accuracy above x [")
    reverse = {"ppo-noptx-6b": answers(35), "ppo-ptx-6b": answers(20)}
    found = summary(of_models(tmp_path / "s.csv", reverse, ["yes"] * 40))
    assert found["statement"].startswith("pretraining gradients cost 37.5 [")
    (row,) = found["differences"]
    assert (row["a"], row["b"]) == ("ppo-ptx-6b", "ppo-noptx-6b")


def test_a_table_without_groups_has_its_number_for_an_answer(tmp_path: Path) -> None:
    found = summary(table(tmp_path / "s.csv", {}), TextMetric.squad)
    assert found["differences"] == found["overall"] == []
    assert found["statement"].startswith("SQuAD F1 is 77.8 [")  # the mean of 8/9, 1, 1, 1 and 0
    (cell,) = found["cells"]
    assert set(cell) == {"n", "squad_f1", "squad_f1_ci", "squad_em", "squad_em_ci"}


def test_the_same_seed_gives_the_same_intervals(sized: Path) -> None:
    assert summary(sized) == summary(sized)


@needs_shared
def test_instructgpts_translations_show_the_alignment_tax_and_what_ptx_wins_back() -> None:
    found = summary(SHARED / "fr_to_en_samples.csv", TextMetric.bleu, 200)
    assert len(found["cells"]) == 24
    assert all(cell["n"] == 100 for cell in found["cells"])
    of = {(row["a"], row["b"], row["prompt_type"]): row for row in found["differences"]}
    for size in ("xl", "6b", "175b"):
        for shown in ("zeroshot", "fewshot"):
            assert of[f"ppo-noptx-{size}", f"gpt-{size}", shown]["ci"][1] < 0
            assert of[f"ppo-ptx-{size}", f"ppo-noptx-{size}", shown]["ci"][0] > 0
    bleu = {(cell["model_type"], cell["prompt_type"]): cell["bleu"] for cell in found["cells"]}
    assert bleu["gpt-175b", "zeroshot"] == pytest.approx(35.9, abs=0.05)
    assert of["ppo-noptx-175b", "gpt-175b", "zeroshot"]["difference"] == pytest.approx(
        bleu["ppo-noptx-175b", "zeroshot"] - bleu["gpt-175b", "zeroshot"]
    )
    assert "ppo-noptx lies 9.2 BLEU below gpt" in found["statement"]


@needs_shared
@pytest.mark.slow
def test_instructgpts_summaries_have_three_sizes_and_no_prompt_type() -> None:
    found = summary(SHARED / "tldr_samples.csv.gz", TextMetric.rouge, 200)
    assert len(found["cells"]) == 12
    assert all("prompt_type" not in cell and cell["n"] == 100 for cell in found["cells"])
    assert {row["metric"] for row in found["overall"]} == {"rouge1", "rouge2", "rougeL"}
