"""Whatever JSON a row holds, a reader of rankings makes records of it or says in a sentence why not."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.data.files import Row
from rlhf.data.readers import helpsteer, hh_rlhf, safe_rlhf, shp, summarize_from_feedback, ultrafeedback, webgpt
from rlhf.data.records import BadRowError, Demonstration, Prompt, Ranking, Record

Read = Callable[[Mapping[str, Any]], Sequence[Record]]

RATED = {"prompt": "p", "response": "a", "helpfulness": 3, "correctness": 3, "coherence": 4, "complexity": 1}
PAIR = {"response_0": "a", "response_1": "b", "is_response_0_safe": True, "is_response_1_safe": False}
TOLD = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
COMPLETION = {
    "response": "a",
    "overall_score": 10.0,
    "fine-grained_score": 4.5,
    "annotations": {"honesty": {"Rating": "5"}, "helpfulness": {"Rating": "N/A"}},
}
# A reader, and a row that it takes.
CASES: dict[str, tuple[Read, dict[str, Any]]] = {
    "hh_rlhf": (
        hh_rlhf.read,
        {"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b"},
    ),
    "hh_rlhf attack": (hh_rlhf.read, {"transcript": "\n\nHuman: p\n\nAssistant: a", "red_team_member_id": 3}),
    "summarize_from_feedback": (
        summarize_from_feedback.read,
        {
            "info": {"id": "t3", "post": "p", "title": "t", "subreddit": "s", "site": None, "article": None},
            "summaries": [{"text": "a", "policy": "ref", "note": None}, {"text": "b", "policy": "sup", "note": ""}],
            "choice": 0,
            "split": "valid1",
        },
    ),
    "ultrafeedback": (
        ultrafeedback.read,
        {
            "source": "flan",
            "instruction": "p",
            "completions": [COMPLETION, {**COMPLETION, "response": "b", "overall_score": 7}],
        },
    ),
    "ultrafeedback binarized": (
        ultrafeedback.read,
        {
            "prompt_id": "ab",
            "chosen": TOLD,
            "rejected": [TOLD[0], {"role": "assistant", "content": "b"}],
            "score_chosen": 8.0,
            "score_rejected": 7.0,
        },
    ),
    "shp": (
        shp.read,
        {"history": "p", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 3, "domain": "askvet_test"},
    ),
    "helpsteer": (helpsteer.read, RATED),
    "helpsteer gathered": (helpsteer.read, {"rows": [RATED, {**RATED, "response": "b", "helpfulness": 1}]}),
    "webgpt": (
        webgpt.read,
        {
            "question": {"full_text": "p", "dataset": "eli5", "id": "x"},
            "answer_0": "a",
            "answer_1": "b",
            "score_0": 0.5,
            "score_1": -0.5,
        },
    ),
    "safe_rlhf": (safe_rlhf.read, {"prompt": "p", **PAIR, "better_response_id": 0}),
    "safe_rlhf safer": (safe_rlhf.read_safer, {"prompt": "p", **PAIR, "safer_response_id": 1}),
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.sampled_from(["", " \n", "a", "b", "user", "\n\nHuman: ", "\n\nAssistant: a", "<extra_id_1>User\n"])
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a row."""
    if isinstance(value, dict):
        inner = list(value.items())
    else:
        inner = list(enumerate(value)) if isinstance(value, list) else []
    return [found for key, each in inner for found in [(*path, key), *places(each, (*path, key))]]


def changed(row: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    row = copy.deepcopy(row)
    inner: Any = row
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return row


def check(read: Read, row: Mapping[str, Any]) -> None:
    problem = None
    try:
        records = read(row)
    except BadRowError as error:
        problem = error
    if problem is not None:
        assert str(problem).strip()
        assert problem.remedy.strip()
        return
    assert records
    for record in records:
        assert isinstance(record, Demonstration | Ranking | Prompt)
        prompt = record if isinstance(record, Prompt) else record.prompt
        assert prompt.messages
        assert all(message.content.strip() for message in prompt.messages)
        if isinstance(record, Demonstration):
            assert record.response.strip()
        if isinstance(record, Ranking):
            assert len(record.completions) == len(record.ranks) >= 2
            assert len(set(record.completions)) > 1
            assert all(completion.strip() for completion in record.completions)
            assert set(record.ranks) == set(range(max(record.ranks) + 1))
            assert len(record.margins) in (0, len(record.ranks))
            assert all(math.isfinite(margin) for margin in record.margins)


@pytest.mark.parametrize("name", CASES)
def test_the_row_that_is_changed_below_is_a_good_one(name: str) -> None:
    read, row = CASES[name]
    assert read(row)
    check(read, row)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_row_with_a_value_of_any_kind_in_any_place_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, row = CASES[name]
    for _ in range(data.draw(st.integers(1, 2))):
        row = changed(row, data.draw(st.sampled_from(places(row))), data.draw(values))
    check(read, row)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_row_of_any_keys_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, row = CASES[name]
    keys = st.sampled_from(sorted(row)) | st.text(max_size=4)
    check(read, data.draw(st.dictionaries(keys, values, max_size=6)))


@settings(max_examples=100, deadline=None)
@given(
    drawn=st.lists(
        st.tuples(st.sampled_from(["p", "q"]) | values, st.integers(1, 2), st.sampled_from(["a.jsonl", "b.jsonl"])),
        max_size=12,
    )
)
def test_gather_loses_no_row_and_keeps_their_order(drawn: list[tuple[Any, int, str]]) -> None:
    rows = [
        Row(file, number, {**RATED, "prompt": prompt}, merged=merged)
        for number, (prompt, merged, file) in enumerate(drawn)
    ]
    gathered = list(helpsteer.gather(rows))
    assert sum(row.merged for row in gathered) == sum(row.merged for row in rows)
    kept = [values for row in gathered for values in row.values.get("rows", [row.values])]
    assert [id(each) for each in kept] == [id(row.values) for row in rows]
    for row in gathered:
        check(helpsteer.read, row.values)
