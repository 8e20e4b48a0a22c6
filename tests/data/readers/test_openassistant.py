from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data.files import Row
from rlhf.data.readers.openassistant import gather, read
from rlhf.data.records import BadRowError, Demonstration, Prompt, Ranking

FOLDER = Path("/work/shared/data/oasst")
needs_shared = pytest.mark.skipif(not FOLDER.exists(), reason="the real files are not on this machine")


def message(own: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A message of a tree; the first letter of its id says whose it is."""
    role = "prompter" if own[0] == "p" else "assistant"
    return {"message_id": own, "text": own, "role": role, "replies": list(replies), **more}


def tree(first: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message_tree_id": first["message_id"], "tree_state": "ready_for_export", "prompt": first, **more}


def flat(message_id: str, parent: str | None, **more: Any) -> dict[str, Any]:
    """A row of the hub's table."""
    values = {
        "message_id": message_id,
        "parent_id": parent,
        "text": message_id,
        "role": "prompter" if message_id[0] == "p" else "assistant",
        "rank": None,
        "lang": "en",
        "deleted": False,
        "review_result": True,
        "message_tree_id": "p1",
        "tree_state": "ready_for_export",
    }
    return {**values, **more}


def rows(values: list[dict[str, Any]]) -> list[Row]:
    return [Row("messages.jsonl", number, row) for number, row in enumerate(values, start=1)]


def demonstrated(records: list[Any]) -> list[list[str]]:
    return [[*(m.content for m in d.prompt.messages), d.response] for d in records if isinstance(d, Demonstration)]


def ranked(records: list[Any]) -> list[tuple[str, dict[str, int]]]:
    rankings = [record for record in records if isinstance(record, Ranking)]
    return [(r.prompt.messages[-1].content, dict(zip(r.completions, r.ranks, strict=True))) for r in rankings]


def test_best_ranked_replies_are_demonstrations_and_all_ranked_siblings_a_ranking() -> None:
    loser = message("a2", message("p3", message("a5", rank=0), message("a6", rank=1)), rank=1)
    winner = message("a1", message("p2", message("a4")), rank=0)
    records = read(tree(message("p1", loser, winner, message("a3", rank=2))))
    assert demonstrated(records) == [["p1", "a1"], ["p1", "a1", "p2", "a4"]]
    assert ranked(records) == [("p1", {"a2": 1, "a1": 0, "a3": 2}), ("p3", {"a5": 0, "a6": 1})]


def test_siblings_without_ranks_are_all_demonstrations_and_no_ranking() -> None:
    first, second = message("a1", message("p2", message("a3"))), message("a2", message("p3", message("a4")), rank=None)
    records = read(tree(message("p1", first, second)))
    in_file_order = [["p1", "a1"], ["p1", "a2"], ["p1", "a1", "p2", "a3"], ["p1", "a2", "p3", "a4"]]
    assert demonstrated(records) == in_file_order
    assert ranked(records) == []


def test_reply_without_a_rank_beside_ranked_ones_is_not_the_best_and_not_in_the_ranking() -> None:
    records = read(tree(message("p1", message("a1"), message("a2", rank=1), message("a3", rank=0))))
    assert demonstrated(records) == [["p1", "a3"]]
    assert ranked(records) == [("p1", {"a2": 1, "a3": 0})]


def test_ties_stay_and_gaps_close() -> None:
    records = read(tree(message("p1", message("a1", rank=4), message("a2", rank=1.0), message("a3", rank=1))))
    assert ranked(records) == [("p1", {"a1": 1, "a2": 0, "a3": 0})]
    assert demonstrated(records) == [["p1", "a2"]]


def test_siblings_of_the_same_words_rank_nothing() -> None:
    twins = [message("a1", rank=0, text="yes"), message("a2", rank=1, text="yes")]
    assert ranked(read(tree(message("p1", *twins)))) == []


def test_deleted_messages_and_failed_ones_are_left_out_with_all_below_them() -> None:
    deleted = message("a1", message("p2", message("a3")), rank=0, deleted=True, text="")
    failed = message("a2", rank=1, review_result=False)
    records = read(tree(message("p1", deleted, failed, message("a4", rank=2), message("a5", rank=3))))
    assert demonstrated(records) == [["p1", "a4"]]
    assert ranked(records) == [("p1", {"a4": 0, "a5": 1})]


def test_tree_without_a_reply_is_a_prompt_of_its_user() -> None:
    [record] = read(tree(message("p1", user_id="u7")))
    assert isinstance(record, Prompt)
    assert (record.id, record.user, record.messages[0].content) == ("openassistant:p1", "u7", "p1")


def test_every_prompt_has_its_own_id_and_the_user_who_began_the_tree() -> None:
    records = read(tree(message("p1", message("a1", message("p2", message("a2"), user_id="u8")), user_id="u7")))
    prompts = [record.prompt for record in records if isinstance(record, Demonstration)]
    assert [(prompt.id, prompt.user) for prompt in prompts] == [("openassistant:p1", "u7"), ("openassistant:p2", "u7")]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "hello"}, "it is no message tree"),
        (flat("a1", "p1"), "it is no message tree"),
        (tree(message("a1")), "message 'a1', the first of its tree, is the assistant's"),
        (tree(message("p1", message("p2"))), "message 'p2' and the one that it answers are both the prompter's"),
        (tree(message("p1", message("a1", text=" "))), "message 'a1' has no text"),
        (tree(message("p1", message("a1", role="bot"))), "`role` of message 'a1' is neither prompter nor assistant"),
        (tree(message("p1", message("a1", rank="0"))), "`rank` of message 'a1' is not a whole number"),
        (tree(message("p1", message("a1", rank=0.5))), "`rank` of message 'a1' is not a whole number"),
        (tree(message("p1", message("a1"), message("a1"))), "two of its messages have the id 'a1'"),
        (tree(message("p1", replies="none")), "`replies` of message 'p1' is not a list"),
        (tree(message("p1", deleted=True)), "message 'p1', the first of its tree, is deleted or failed review"),
        (tree(message("p1"), tree_state="aborted_low_grade"), "its `tree_state` is aborted_low_grade"),
        ({"prompt": {"text": "p1", "role": "x"}}, "`role` of a message without an id is neither"),
    ],
)
def test_tree_that_is_none_is_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row)


def test_flat_messages_become_the_tree_they_were_taken_from() -> None:
    values = [flat("a1", "p1", rank=1), flat("p1", None), flat("a3", "p2"), flat("p2", "a2"), flat("a2", "p1", rank=0)]
    [gathered] = gather(rows(values))
    assert (gathered.number, gathered.merged) == (2, 5)
    records = read(gathered.values)
    assert demonstrated(records) == [["p1", "a2"], ["p1", "a2", "p2", "a3"]]
    assert ranked(records) == [("p1", {"a1": 1, "a2": 0})]


def test_trees_pass_through_and_rows_that_are_neither_are_refused_by_read() -> None:
    whole = tree(message("p1", message("a1")))
    odd = [{"x": 1}, {"message_id": 3}, {"message_id": "a", "parent_id": ["p"]}]
    gathered = list(gather(rows([whole, *odd])))
    assert [(row.number, row.merged, row.values) for row in gathered] == [
        (number, 1, values) for number, values in enumerate([whole, *odd], start=1)
    ]
    for row in gathered[1:]:
        with pytest.raises(BadRowError, match="it is no message tree"):
            read(row.values)


def test_message_whose_parent_is_missing_is_refused_by_name_with_all_that_hangs_from_it() -> None:
    values = [flat("p1", None), flat("a9", "p8"), flat("p9", "a9"), flat("a1", "p1")]
    whole, orphan = gather(rows(values))
    assert (whole.merged, orphan.merged, orphan.number) == (2, 2, 2)
    with pytest.raises(BadRowError, match="message 'a9' answers 'p8', which is nowhere in the file"):
        read(orphan.values)


def test_messages_that_answer_each_other_in_a_circle_are_refused() -> None:
    values = [flat("a3", "p2"), flat("p1", "a1"), flat("a1", "p2"), flat("p2", "p1"), flat("p7", "p7")]
    gathered = list(gather(rows(values)))
    assert sorted(row.merged for row in gathered) == [1, 4]
    for row in gathered:
        with pytest.raises(BadRowError, match=r"answers '..', which is one of its own replies"):
            read(row.values)


def test_message_given_twice_is_refused_with_its_tree() -> None:
    [gathered] = gather(rows([flat("p1", None), flat("a1", "p1"), flat("a1", "p1"), flat("p2", "a1")]))
    assert gathered.merged == 4
    with pytest.raises(BadRowError, match="two of its messages have the id 'a1'"):
        read(gathered.values)


def test_conversation_deeper_than_the_recursion_limit_is_read() -> None:
    ids = [f"{'pa'[depth % 2]}{depth}" for depth in range(3000)]
    values = [flat(own, parent) for own, parent in zip(ids, [None, *ids], strict=False)]
    [gathered] = gather(rows(values[::-1]))
    assert gathered.merged == 3000
    records = read(gathered.values)
    assert len(records) == 1500
    assert len(demonstrated(records)[-1]) == 3000


def problem_of(row: Row) -> str:
    try:
        assert read(row.values)
    except BadRowError as problem:
        return str(problem)
    return ""


@given(
    st.lists(
        st.fixed_dictionaries(
            {"message_id": st.sampled_from("abcdefgh"), "parent_id": st.sampled_from([None, *"abcdefghz"])},
            optional={
                "text": st.sampled_from(["hello", "", None]),
                "role": st.sampled_from(["prompter", "assistant", "x"]),
                "rank": st.sampled_from([0, 1, None, 1.5]),
                "prompt": st.none(),
            },
        ),
        max_size=12,
    )
)
def test_no_message_is_lost_or_counted_twice_and_missing_parents_are_named(values: list[dict[str, Any]]) -> None:
    gathered = list(gather(rows(values)))
    assert sum(row.merged for row in gathered) == len(values)
    for row in gathered:
        problem = problem_of(row)
        parent = row.values["prompt"]["parent_id"] if isinstance(row.values.get("prompt"), dict) else "none"
        assert problem or parent is None
        assert parent != "z" or "'z', which is nowhere in the file" in problem or "two of its messages" in problem


@needs_shared
def test_real_trees_give_a_ranking_for_each_ranked_set_of_siblings() -> None:
    lines = (FOLDER / "en_100_tree_first50.jsonl").read_text(encoding="utf-8").split("\n")
    values = [json.loads(line) for line in lines if line]
    assert len(values) == 50
    gathered = list(gather(rows(values)))
    assert [row.values for row in gathered] == values
    records = [record for row in gathered for record in read(row.values)]
    rankings = [record for record in records if isinstance(record, Ranking)]
    sizes = [len(ranking.completions) for ranking in rankings]
    assert {size: sizes.count(size) for size in set(sizes)} == {2: 23, 3: 60, 4: 9, 5: 1, 6: 2, 8: 1, 9: 1}
    assert all(sorted(ranking.ranks) == list(range(len(ranking.ranks))) for ranking in rankings)
    assert not any(isinstance(record, Prompt) for record in records)
    best = {(r.prompt.id, r.completions[r.ranks.index(0)]) for r in rankings}
    ranked_prompts = {prompt_id for prompt_id, _ in best}
    demonstrations = [record for record in records if isinstance(record, Demonstration)]
    chosen = {(d.prompt.id, d.response) for d in demonstrations if d.prompt.id in ranked_prompts}
    assert chosen
    assert chosen <= best


@needs_shared
def test_real_flat_list_is_read_but_for_two_trees_in_which_the_assistant_answers_itself() -> None:
    values = json.loads((FOLDER / "realistic_seed_data.json").read_text(encoding="utf-8"))
    assert len(values) == 444
    gathered = list(gather(rows(values)))
    assert len(gathered) == 74
    assert sum(row.merged for row in gathered) == 444
    problems = {problem for row in gathered if (problem := problem_of(row))}
    assert sorted(problems) == [
        f"message '{message_id}' and the one that it answers are both the assistant's"
        for message_id in ("d5z4582h", "iwe88z5h")
    ]
    records = [record for row in gathered if not problem_of(row) for record in read(row.values)]
    assert all(isinstance(record, Demonstration) for record in records)
    refused = sum(row.merged for row in gathered if problem_of(row))
    assistants = sum(row["role"] == "assistant" for row in values)
    assert assistants - refused < len(records) < assistants
