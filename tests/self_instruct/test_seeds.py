from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.sandbox.families import HELD_OUT_FAMILIES, HELD_OUT_PHRASINGS, TRAINING_FAMILIES
from rlhf.self_instruct import prompts
from rlhf.self_instruct.seeds import load_seeds, read_seeds, sandbox_seeds, seeds_hash

SEED_TASKS = Path("/work/shared/data/self_instruct/seed_tasks.jsonl")
TASK = {"id": "a", "name": "b", "instruction": "Sort these.", "instances": [{"input": "b a", "output": "a b"}]}


@pytest.mark.skipif(not SEED_TASKS.exists(), reason="the real files are not on this machine")
def test_the_published_seeds_are_read_whole() -> None:
    seeds = load_seeds(str(SEED_TASKS), 0)
    assert len(seeds) == 175
    assert sum(seed.is_classification for seed in seeds) == sum(
        json.loads(line)["is_classification"] for line in SEED_TASKS.read_text().splitlines()
    )
    assert sum(prompts.short_enough(seed) for seed in seeds) > 100


def test_the_sandboxs_seeds_depend_on_its_world_alone() -> None:
    assert sandbox_seeds(0) == load_seeds(None, 0)
    assert seeds_hash(sandbox_seeds(0)) == seeds_hash(sandbox_seeds(0)) != seeds_hash(sandbox_seeds(1))


def test_the_sandboxs_seeds_have_every_family_that_stands_alone_and_no_phrasing_kept_from_training() -> None:
    seeds = sandbox_seeds(0)
    families = [family for family in TRAINING_FAMILIES if family.name != "followup"]
    assert len(seeds) == 4 * len(families)
    assert 0.1 < sum(seed.is_classification for seed in seeds) / len(seeds) < 0.5
    assert any(len(seed.instances) == 2 for seed in seeds)
    assert all("{" not in seed.instruction and instance.output for seed in seeds for instance in seed.instances)
    held_out = [
        phrasing.replace(slot, "").strip()
        for family in TRAINING_FAMILIES
        for phrasing in family.phrasings[-HELD_OUT_PHRASINGS:]
        for slot in ("{text}", "{words}")
    ]
    assert not {seed.instruction for seed in seeds} & set(held_out)
    assert not any(name in seed.instruction for name in ("opposite", "two sentences") for seed in seeds)
    assert set(HELD_OUT_FAMILIES) == {"opposite", "last_word", "story"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting"),
        ("[]", "it is no JSON object"),
        (json.dumps({**TASK, "instruction": " "}), "it has no text under `instruction`"),
        (json.dumps({**TASK, "instances": []}), "it has no `instances`"),
        (json.dumps({**TASK, "instances": [{"input": "x"}]}), "it has no text under `output`"),
        (json.dumps({**TASK, "is_classification": "no"}), "`is_classification` is neither true nor false"),
    ],
)
def test_a_line_that_holds_no_task_is_refused_with_its_number(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text(json.dumps(TASK) + "\n\n" + line + "\n")
    with pytest.raises(UserError, match=r"seeds\.jsonl, line 3: .*self_instruct\.seeds") as raised:
        read_seeds(path)
    assert problem in str(raised.value)


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_a_file_without_seeds_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "seeds.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"self_instruct\.seeds"):
        read_seeds(path)
