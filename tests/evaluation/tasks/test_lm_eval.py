from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import CompareConfig, Config, ModelConfig, TrackerConfig
from rlhf.errors import UserError
from rlhf.evaluation.answering.multiple_choice import chosen, encode, option_logprobs
from rlhf.evaluation.tasks import benchmarks, lm_eval
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.sandbox.benchmark import benchmark
from rlhf.sandbox.world import World

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed (pip install 'rlhf[benchmarks]')"
)
TASK = """
task: NAME
dataset_path: json
dataset_kwargs:
  data_files: FILE
test_split: train
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{options}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list:
  - metric: acc
"""


def write_task(folder: Path, name: str = "own_items", data: str = "items.jsonl") -> None:
    (folder / f"{name}.yaml").write_text(TASK.replace("NAME", name).replace("FILE", str(folder / data)))


def test_a_missing_package_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rlhf\[benchmarks\]'.*compare\.lm_eval=\[\]\.$"):
        lm_eval.require(CompareConfig(lm_eval=["hellaswag"]))
    lm_eval.require(CompareConfig())


def test_only_tasks_whose_items_lie_on_this_disk_keep_the_network_off(tmp_path: Path) -> None:
    write_task(tmp_path, "local")
    (tmp_path / "folder.yaml").write_text(f"task: folder\ndataset_path: {tmp_path}\n")
    (tmp_path / "remote.yaml").write_text("task: remote\ndataset_path: Rowan/hellaswag\n")
    (tmp_path / "shared").write_text("dataset_path: csv\nprocess_docs: !function utils.clean\n")
    (tmp_path / "including.yaml").write_text("include: shared\ntask: including\n")
    for name, reaches in (("local", False), ("folder", False), ("remote", True), ("including", False), ("arc", True)):
        assert lm_eval.reaches_hub(CompareConfig(lm_eval=[name], lm_eval_path=str(tmp_path))) == reaches, name
    assert lm_eval.reaches_hub(CompareConfig(lm_eval=["local", "remote"], lm_eval_path=str(tmp_path)))
    assert not lm_eval.reaches_hub(CompareConfig())


def test_a_task_file_that_is_no_yaml_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("task: [\n")
    with pytest.raises(UserError, match=r"bad\.yaml does not read as a task"):
        lm_eval.reaches_hub(CompareConfig(lm_eval=["x"], lm_eval_path=str(tmp_path)))


def test_the_hash_of_a_task_folder_is_of_all_its_files(tmp_path: Path) -> None:
    write_task(tmp_path)
    before = lm_eval.tasks_hash(str(tmp_path))
    assert lm_eval.tasks_hash(str(tmp_path)) == before
    (tmp_path / "utils.py").write_text("clean = str.strip\n")
    assert lm_eval.tasks_hash(str(tmp_path)) != before


def test_metrics_lose_the_filter_none_and_what_is_no_number() -> None:
    found = {
        "alias": "arc",
        "acc,none": 0.5,
        "acc_stderr,none": "N/A",
        "exact_match,strict": 1,
        "f1,none": float("nan"),
    }
    assert lm_eval._numbers(found) == {"acc": 0.5, "exact_match,strict": 1.0}


@pytest.fixture
def own(tmp_path: Path) -> CompareConfig:
    """lm-eval and our own benchmark on the same items."""
    items = benchmark(World.from_seed(0), per_task=5)
    rows = [{"context": i.context, "options": list(i.options), "answer": i.answer, "task": i.task} for i in items]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_task(tmp_path)
    return CompareConfig(lm_eval=["own_items"], lm_eval_path=str(tmp_path), benchmark=str(tmp_path / "items.jsonl"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a local task reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@needs_lm_eval
@pytest.mark.slow
def test_lm_eval_finds_the_accuracy_that_we_do_and_needs_no_network(own: CompareConfig, offline: None) -> None:
    path, items = "builtin:sandbox-s", benchmarks.read(own.benchmark or "")
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    lm_eval.require(own)
    config = Config(compare=own, tracker=TrackerConfig(progress=False))
    theirs = lm_eval.evaluate(model, tokenizer, config)["own_items"]
    ours = benchmarks.summary(items, chosen(option_logprobs(model, tokenizer, items)))
    assert theirs["n"] == ours["n"] == 55
    assert theirs["acc"] == ours["accuracy"]
    assert 0.7 < theirs["acc"] < 1.0  # neither has all right, so the equality says something
    assert theirs["acc_stderr"] == pytest.approx((theirs["acc"] * (1 - theirs["acc"]) / 54) ** 0.5)

    limited = Config(
        compare=CompareConfig(lm_eval=["own_items"], lm_eval_path=own.lm_eval_path, lm_eval_limit=11, lm_eval_shots=1),
        tracker=TrackerConfig(progress=False),
    )
    few = lm_eval.evaluate(model, tokenizer, limited)["own_items"]
    assert few["n"] == 11
    assert lm_eval.evaluate(model, tokenizer, limited)["own_items"] == few  # its worked examples are the seed's


@needs_lm_eval
@pytest.mark.slow
def test_a_task_that_nobody_has_is_refused_before_a_model_loads(own: CompareConfig) -> None:
    own.lm_eval = ["own_items", "own_itms"]
    # A task unknown to the folder may be one of lm-eval's own, all of which are read for it.
    with pytest.raises(UserError, match="holds own_itms, which is no task of lm-eval"):
        lm_eval.require(own)


@needs_lm_eval
@pytest.mark.slow
@pytest.mark.parametrize("context", ["A cow says", "A cow says ", "The capital of Zoria is L", "3 +"])
def test_a_pair_is_split_where_lm_eval_splits_it(context: str) -> None:
    from lm_eval.models.huggingface import HFLM

    path = "builtin:sandbox-s"
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    harness = HFLM(pretrained=model, tokenizer=tokenizer)
    for option in (" moo.", "ume.", "4 = 7."):
        assert encode(tokenizer, context, option) == harness._encode_pair(context, option)
