"""Whatever JSON a row holds, a reader gives records or refuses it with a sentence."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.data.files import Row
from rlhf.data.readers import instructgpt, openassistant
from rlhf.data.records import BadRowError, Demonstration, Document, Prompt, Ranking

# Each reader's columns, a tuple for each shape of row that it takes.
SHAPES: dict[str, list[tuple[str, ...]]] = {
    "alpaca": [("instruction", "input", "output")],
    "dolly": [("instruction", "context", "response", "category")],
    "flan": [("inputs", "targets", "_task_name"), ("inputs", "targets", "task_name"), ("inputs", "targets", "task")],
    "flan_cot": [("question", "answer", "rationale")],
    "gpt4_llm": [
        ("instruction", "input", "output"),
        ("user_input", "responses_and_scores"),
        ("user_input", "completion_a", "completion_b"),
    ],
    "instructgpt": [("", "model_type", "prompt_type", "context", "ref_text", "sample")],
    "lima": [("texts as conversations", "source")],
    "openassistant": [
        ("message_tree_id", "tree_state", "message as prompt"),
        ("message_id", "parent_id", "text", "role", "rank"),
        ("user_message_id", "parent_message_id", "text", "role"),
    ],
    "openhermes": [("conversations", "system_prompt", "category"), ("instruction", "input", "output")],
    "self_instruct": [
        ("id", "name", "instruction", "instances"),
        ("id", "motivation_app", "instruction", "instances"),
        ("instruction", "input", "output"),
        ("prompt", "completion"),
        ("instruction", "raw_instances", "instance_metadata"),
    ],
    "sharegpt": [("id", "conversations")],
    "slimorca": [("conversations",)],
    "t0": [("prompt", "completion"), ("inputs_pretokenized", "targets_pretokenized")],
    "ultrachat": [("prompt", "prompt_id", "messages"), ("id", "data")],
}

KEYS = ("from", "value", "role", "content", "input", "output", "response", "score", "source", "text", "replies", "rank")
words = st.sampled_from(["yes", "None", "a b", "é\u2028", "<|endoftext|>", "x<|endoftext|>", "\\n", "end:", "", " \n"])
words |= st.sampled_from(["Example 1\nInput: a\nOutput: b", "Example 2 Output: c", "Class label: x\ny", "### Input:\n"])
texts = st.sampled_from(["hello", "p1"]) | words | st.text(max_size=6)
scalars = st.none() | st.booleans() | st.integers(-2, 12) | st.floats() | texts


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def grown(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(KEYS), children, max_size=4)


anything = st.recursive(scalars, grown, max_leaves=6) | st.integers(1, 60).map(nested)


def mostly(likely: st.SearchStrategy[Any], otherwise: st.SearchStrategy[Any] = anything) -> st.SearchStrategy[Any]:
    return st.integers(0, 11).flatmap(lambda roll: likely if roll else otherwise)


def chat(who: str, what: str, roles: tuple[str, str]) -> st.SearchStrategy[Any]:
    """Turns one after the other; now and then one of another role, or none at all."""
    odd = st.fixed_dictionaries({who: st.sampled_from(["system", "tool", *roles]), what: texts})

    def turn(index: int) -> st.SearchStrategy[Any]:
        return mostly(st.fixed_dictionaries({who: st.just(roles[index % 2]), what: mostly(st.just("a"), texts)}), odd)

    return st.integers(0, 5).flatmap(lambda count: st.tuples(*(turn(index) for index in range(count))).map(list))


def message(role: str, replies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {
            "role": mostly(st.just(role), texts),
            "text": mostly(st.sampled_from("ab"), texts),
            "replies": mostly(replies),
        },
        optional={
            "rank": mostly(st.integers(0, 2)),
            "message_id": mostly(st.text("abcdefgh", min_size=3)),
            "deleted": st.booleans(),
            "parent_id": mostly(st.none()),
        },
    )


def prompters(replies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return message("prompter", st.lists(replies, max_size=3))


assistants = st.recursive(
    message("assistant", st.just([])),
    lambda replies: message("assistant", st.lists(prompters(replies), max_size=2)),
    max_leaves=4,
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "conversations": chat("from", "value", ("human", "gpt")),
    "messages": chat("role", "content", ("user", "assistant")),
    "texts as conversations": st.lists(mostly(st.just("a")), max_size=5),
    "data": st.lists(mostly(st.just("a")), max_size=5),
    "message as prompt": prompters(assistants),
    "role": st.sampled_from(["prompter", "assistant"]),
    "rank": st.none() | st.integers(0, 3),
    "message_id": st.sampled_from("abcde"),
    "parent_id": st.sampled_from([None, *"abcdez"]),
    "user_message_id": st.sampled_from("abcde"),
    "parent_message_id": st.sampled_from([None, *"abcdez"]),
    "responses_and_scores": st.lists(
        mostly(st.fixed_dictionaries({"response": texts, "score": mostly(st.integers(0, 9))})), min_size=2, max_size=4
    ),
    "instances": st.lists(
        mostly(st.fixed_dictionaries({"output": mostly(st.just("a"), texts)}, optional={"input": texts})), max_size=3
    ),
    "raw_instances": st.lists(texts, max_size=4).map("\n".join),
    "instance_metadata": st.builds(
        lambda choices: {"response": {"choices": choices}},
        mostly(st.lists(st.fixed_dictionaries({"finish_reason": st.sampled_from(["stop", "length"])}), max_size=1)),
    ),
    "user_input": texts.map("Below is an instruction that describes a task.\n\n### Instruction:\n{}".format) | texts,
}


def rows_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Rows of one of the format's shapes, most of their values likely ones; at times any value, or a column less."""

    def of_shape(shape: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
        likely = {column: LIKELY.get(column, mostly(st.sampled_from(["a", "b c"]), texts)) for column in shape}
        row = {column.rpartition(" as ")[2]: mostly(values) for column, values in likely.items()}
        return st.fixed_dictionaries(row) | st.fixed_dictionaries({}, optional=row)

    return st.sampled_from(SHAPES[name]).flatmap(of_shape)


def check(name: str, row: dict[str, Any]) -> None:
    read = importlib.import_module(f"rlhf.data.readers.{name}").read
    problem, records = "", []
    try:
        records = list(read(row))
    except BadRowError as refused:
        problem = str(refused)
    assert records or problem.strip()
    for record in records:
        assert isinstance(record, Demonstration | Ranking | Prompt | Document)
        if isinstance(record, Demonstration):
            assert record.response.strip()
        if isinstance(record, Ranking):
            assert len(record.completions) == len(record.ranks) >= 2
            assert min(record.ranks) == 0


@pytest.mark.parametrize("name", sorted(SHAPES))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_row_gives_records_or_a_sentence(name: str, data: st.DataObject) -> None:
    check(name, data.draw(rows_of(name)))


@pytest.mark.parametrize("gather", [openassistant.gather, instructgpt.gather])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_gathering_counts_every_row_once(gather: Any, data: st.DataObject) -> None:
    name = gather.__module__.rpartition(".")[2]
    drawn = data.draw(st.lists(rows_of(name), max_size=6))
    gathered = list(gather(Row("a.json", number, row) for number, row in enumerate(drawn, start=1)))
    assert sum(row.merged for row in gathered) == len(drawn)
    for row in gathered:
        check(name, dict(row.values))
