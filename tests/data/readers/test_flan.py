from __future__ import annotations

import pytest

from rlhf.data.readers.flan import read
from rlhf.data.records import BadRowError

ROW = {
    "inputs": "Premise: it rains. Hypothesis: it is wet.\nOPTIONS:\n- yes\n- no",
    "targets": "yes",
    "_template_idx": 3,
    "_task_source": "Flan2021",
    "_task_name": "rte:2.0.0",
    "_template_type": "zs_opt",
}


def test_row_is_a_demonstration_of_its_task() -> None:
    [record] = read(ROW)
    assert record.prompt.messages[0].content == ROW["inputs"]
    assert (record.response, record.prompt.task) == ("yes", "rte:2.0.0")


@pytest.mark.parametrize("key", ["task_name", "task"])
def test_task_is_found_under_the_names_that_copies_use(key: str) -> None:
    assert read({"inputs": "a", "targets": "b", key: "cola"})[0].prompt.task == "cola"
    assert read({"inputs": "a", "targets": "b"})[0].prompt.task == ""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"targets": ""}, "`targets` is empty"),
        ({"inputs": [1]}, "no text under `inputs`"),
        ({"_task_name": 1}, "`_task_name` is not text"),
    ],
)
def test_row_without_its_texts_is_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read({**ROW, **change})
