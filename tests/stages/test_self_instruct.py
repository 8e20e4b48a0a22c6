from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.source import load_source
from rlhf.config import (
    Config,
    DataConfig,
    DataSourceName,
    Device,
    LaunchConfig,
    ModelConfig,
    RolloutConfig,
    SelfInstructConfig,
    TrackerConfig,
)
from rlhf.data.records import Split
from rlhf.errors import UserError
from rlhf.self_instruct.local import LocalModel
from rlhf.self_instruct.plots import diversity
from rlhf.self_instruct.records import Writer
from rlhf.self_instruct.seeds import sandbox_seeds
from rlhf.self_instruct.statistics import summarise, verb_and_object
from rlhf.self_instruct.store import Store
from stages import self_instruct
from tests.support.fakes import ListSource, make_context
from tests.support.self_instruct import FakeWriter
from tests.support.tiny import save_tiny_model

FILES = (
    *("instructions.jsonl", "instances.jsonl", "dropped.jsonl", "rounds.jsonl"),
    *("data.jsonl", "statistics.json", "diversity.png"),
)


def make_config(**settings: Any) -> Config:
    return Config(
        self_instruct=SelfInstructConfig(**settings),
        tracker=TrackerConfig(progress=False),
        launch=LaunchConfig(device=Device.cpu),
        model=ModelConfig(),
        rollout=RolloutConfig(batch_size=4),
    )


def run(folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch, writer: Writer, *, resume: bool = False) -> Any:
    monkeypatch.setattr(self_instruct, "_writer", lambda context: writer)
    context = dataclasses.replace(make_context(folder, config, {}, ListSource()), resume=resume)
    return context, self_instruct.run(context)


def test_a_run_leaves_data_that_sft_reads_with_statistics_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(instructions=30)
    context, metrics = run(tmp_path, config, monkeypatch, FakeWriter())
    assert all((tmp_path / name).stat().st_size > 0 for name in FILES)
    assert metrics["self_instruct/instructions"] >= 30
    assert sum(context.tracker.values("self_instruct/instances")) == metrics["self_instruct/instances"]
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert statistics["instances"] == metrics["self_instruct/instances"]
    assert "word of self_instruct.keywords" in capsys.readouterr().out
    assert (tmp_path / "diversity.png").read_bytes().startswith(b"\x89PNG")

    data = DataConfig(source=DataSourceName.alpaca, path=str(tmp_path / "data.jsonl"))
    source = load_source(data, 0, tmp_path / "bad_rows.jsonl")
    read = [row for split in Split for row in source.demonstrations(split)]
    assert len(read) == metrics["self_instruct/instances"]


def test_a_stopped_run_goes_on_to_the_same_files_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(instructions=60)
    whole, metrics = run(tmp_path / "whole", config, monkeypatch, FakeWriter())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", config, monkeypatch, FakeWriter(stop_at=4))
    context, resumed = run(tmp_path / "stopped", config, monkeypatch, FakeWriter(), resume=True)
    assert resumed == metrics
    assert context.tracker.logged == whole.tracker.logged[1:]
    for name in FILES:
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_finished_pool_loads_no_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(instructions=5)
    _, metrics = run(tmp_path, config, monkeypatch, FakeWriter())
    assert run(tmp_path, config, monkeypatch, FakeWriter(stop_at=0), resume=True)[1] == metrics


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def test_an_untrained_model_is_stopped_with_what_was_wrong_and_its_drops_are_listed(tmp_path: Path, tiny: str) -> None:
    config = make_config(
        **{"instructions": 4, "patience": 2, "prompts_per_round": 3, "seed_examples": 1, "generated_examples": 0},
        **{"instance_examples": 0, "instruction_tokens": 24, "instance_tokens": 16},
    )
    context = make_context(tmp_path, config, {"model": tiny}, ListSource())
    with pytest.raises(UserError, match=r"2 rounds in a row kept no instruction; 0 of 4 are there\. Dropped: "):
        self_instruct.run(context)
    dropped = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(dropped) >= 6
    assert {row["round"] for row in dropped} == {0, 1}


def complete(model: LocalModel, prompts: list[str], *, stop: list[str] | None = None, seed: int = 5) -> Any:
    return model.complete(prompts, max_tokens=120, temperature=1.0, stop=stop or [], seed=seed, doing="test")


def test_a_local_model_goes_on_the_same_for_the_same_seed_and_is_cut_at_the_stop_string(tiny: str) -> None:
    model = LocalModel(tiny, make_config())
    prompts = ["one two three", "a", "the sky is blue and", "User: sort", "ten"]
    free = complete(model, prompts)
    assert free == complete(model, prompts)
    assert free != complete(model, prompts, seed=6)
    assert len({completion.text for completion in free}) == 5
    assert not any(completion.finished for completion in free[:1])
    letter = free[0].text[20]
    cut = complete(model, prompts, stop=[letter])
    assert [completion.text for completion in cut] == [completion.text.partition(letter)[0] for completion in free]
    assert cut[0].finished


def test_a_local_model_says_what_fits_its_context(tiny: str) -> None:
    model = LocalModel(tiny, make_config())
    assert model.fits("one", 250)
    assert not model.fits("one", 256)
    assert not model.fits("x?" * 200, 1)


@pytest.mark.parametrize(
    ("instruction", "found"),
    [
        ("Write a short story about a dog.", ("write", "story")),
        ("Generate an appropriate subjective title for the following email:", ("generate", "title")),
        ("What is the relation between the given pairs?", ("what", "relation")),
        ("Suggest three names: cheap ones.", ("suggest", "names")),
        ("Translate", ("translate", "")),
        ("42?", ("", "")),
        ("Please name a fruit that is red.", ("name", "fruit")),
        ("You are a pirate.", ("", "")),
        ("Come up with a list of names.", ("come", "list")),
    ],
)
def test_the_first_word_and_its_object_are_found(instruction: str, found: tuple[str, str]) -> None:
    assert verb_and_object(instruction) == found


def test_the_figure_is_drawn_of_whatever_was_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, resume=False)
    seeds = sandbox_seeds(0)
    diversity(tmp_path / "none.png", summarise(seeds, store), store, 0.7)
    rng = random.Random(0)
    store.commit(
        self_instruct.Round(
            0,
            1,
            [
                {
                    "instruction": "Pay $5 and $6.",
                    "is_classification": False,
                    "rouge_l": rng.random(),
                    "seed_rouge_l": 0.1,
                }
            ],
            [{"instruction": "Pay $5 and $6.", "input": "", "output": "Done."}],
        )
    )
    diversity(tmp_path / "one.png", summarise(seeds, store), store, 0.7)
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "none.png").read_bytes()
