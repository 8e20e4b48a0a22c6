from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from rlhf.cli.job import run_job
from rlhf.config import Config, DataConfig, LabelConfig, OnBadRow, RunConfig, StageName
from rlhf.data.bad_rows import BadRows
from rlhf.errors import UserError
from rlhf.labeling.items import load
from rlhf.labeling.store import Store
from rlhf.runtime.folder import StageFolder
from stages import label
from tests.support.labeling import compared, judgement, write


def config_of(folder: Path, *, seed: int = 0, on_bad_row: OnBadRow = OnBadRow.refuse, **settings: Any) -> Config:
    return Config(
        stage=StageName.label,
        seed=seed,
        run=RunConfig(name="mine", root=str(folder / "runs")),
        data=DataConfig(on_bad_row=on_bad_row),
        label=LabelConfig(**{"port": 0, "open_browser": False, **settings}),
    )


def compared_run(folder: Path, prompts: int = 3) -> None:
    write(folder / "runs" / "mine" / "compare" / "responses.jsonl", compared(prompts))


def judge_all(folder: Path, labeler: str = "Ann") -> None:
    """As if a labeler had judged all there is to judge: Good, Fair, Bad."""
    responses = folder / "runs" / "mine" / "compare" / "responses.jsonl"
    items = load(responses, BadRows(OnBadRow.refuse, None), prompts=None, max_responses=9, seed=0).by_key.values()
    store = Store(folder / "runs" / "mine" / "label" / "labels.sqlite")
    store.add_items(items)
    for item in items:
        words = [response.text.split()[0] for response in item.responses]
        store.add(judgement(item, [["Good", "Fair", "Bad"].index(word) for word in words], labeler))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The applications that were served; in place of a server, Ctrl-C at once, as uvicorn passes it on."""
    apps: list[Any] = []

    def run(server: uvicorn.Server, sockets: Any) -> None:
        apps.append(server.config)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return apps


def test_a_run_ends_by_ctrl_c_with_what_people_said_and_the_commands_that_use_it(
    tmp_path: Path, served: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    compared_run(tmp_path)
    config = config_of(tmp_path)
    assert run_job(config, ()) == (0, "")
    assert "nobody has judged yet" in capsys.readouterr().out
    folder = tmp_path / "runs" / "mine" / "label"
    judge_all(tmp_path, "Ann")
    judge_all(tmp_path, "Ben")
    assert run_job(config, ()) == (0, "")
    said = capsys.readouterr().out
    assert "3 prompts to judge\n  Ann: 3 judged, agrees with the others on 100 % of pairs\n  Ben: 3 judged" in said
    assert "agreement: 100.0 % of 9 pairs ordered alike, over 3 prompts, Krippendorff's alpha of places 1.00" in said
    assert f"Judge here: http://127.0.0.1:{said.partition('127.0.0.1:')[2].partition('/')[0]}/?token=" in said
    assert f"6 rankings: {folder / 'rankings.jsonl'}" in said
    assert f"18 verdicts: {folder / 'verdicts.jsonl'}" in said
    assert f"stage=reward data={folder / 'rankings.jsonl'} reward.policy=MODEL run.name=NAME" in said
    assert f"stage=compare compare.verdicts={folder / 'verdicts.jsonl'} run.name=NAME" in said
    assert len(served) == 2
    assert not served[0].access_log
    assert served[0].log_config is None


def test_the_run_is_named_where_it_has_a_policy_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared_run(tmp_path)
    StageFolder(tmp_path / "runs" / "mine" / "sft").write_manifest(status="complete")
    judge_all(tmp_path)
    label.run(config_of(tmp_path, export=True))
    assert f"run.parents={tmp_path / 'runs' / 'mine'} run.name=NAME" in capsys.readouterr().out


def test_export_needs_no_page_and_not_the_file_that_was_judged(tmp_path: Path, served: list[Any]) -> None:
    compared_run(tmp_path)
    folder = tmp_path / "runs" / "mine" / "label"
    judge_all(tmp_path)
    (tmp_path / "runs" / "mine" / "compare" / "responses.jsonl").unlink()
    label.run(config_of(tmp_path, export=True))
    assert served == []
    assert len((folder / "rankings.jsonl").read_text().splitlines()) == 3
    verdicts = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert {row["generator_1"] for row in verdicts} == {"sft", "base"}


def test_what_is_missing_is_one_sentence_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"to judge; make it with python -m rlhf stage=compare run\.name=mine run\.root"
    ):
        label.run(config_of(tmp_path))
    with pytest.raises(UserError, match=r"labels\.sqlite to export; judge first: python -m rlhf stage=label run\.name"):
        label.run(config_of(tmp_path, export=True))
    with pytest.raises(UserError, match=r"There is no file .*none\.jsonl; set label\.responses"):
        label.run(config_of(tmp_path, responses=str(tmp_path / "none.jsonl")))
    assert not (tmp_path / "runs").exists()


def test_settings_reach_the_page(tmp_path: Path, served: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "Only one"}, {"prompt": "Alike", "responses": ["a", "a"]}, *compared(5)]
    path = write(tmp_path / "r.jsonl", rows)
    with pytest.raises(UserError, match=r"row 1: .*data\.on_bad_row=skip"):
        label.run(config_of(tmp_path, responses=str(path)))
    label.run(config_of(tmp_path, responses=str(path), prompts=2, max_responses=2, on_bad_row=OnBadRow.skip))
    said = capsys.readouterr().out
    assert "1 rows left out" in said
    assert "2 prompts to judge; 1 more have only one response to show" in said
    assert "bad_rows.jsonl" in {file.name for file in (tmp_path / "runs" / "mine" / "label").iterdir()}


def test_a_browser_is_opened_where_there_is_a_screen_and_it_is_asked_for(
    tmp_path: Path, served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared_run(tmp_path)
    pages: list[str] = []
    monkeypatch.setattr(label.webbrowser, "open", pages.append)
    for display, wanted in ((":0", True), ("", True), (":0", False)):
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        label.run(config_of(tmp_path, open_browser=wanted))
    assert len(pages) == 1
    assert pages[0].startswith("http://127.0.0.1:")


def test_other_machines_are_let_in_where_that_is_asked_for(
    tmp_path: Path, served: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    compared_run(tmp_path)
    label.run(config_of(tmp_path, host="0.0.0.0", open_browser=True))
    assert "Other machines can open it with that address; nothing on the way is encrypted." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"port": 70000}, r"label\.port is 70000; use 1 to 65535"),
        ({"max_responses": 1}, r"label\.max_responses is 1; use 2 to 9"),
        ({"max_responses": 10}, r"label\.max_responses is 10; use 2 to 9"),
        ({"overlap": 0}, r"label\.overlap is 0; it must be above 0"),
        ({"prompts": 0}, r"label\.prompts is 0; it must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LabelConfig(**settings)
