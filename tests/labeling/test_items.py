from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import OnBadRow
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import Message, Prompt, Ranking, Role, Split
from rlhf.errors import UserError
from rlhf.labeling.items import Item, Items, load, shown_order
from rlhf.reward.rankings import write_rankings
from tests.support.labeling import compared, item, write

SHARED = Path("/work/shared/data")
MESSAGES = [{"role": "user", "content": "Hi"}]


def loaded(path: Path, **settings: Any) -> Items:
    bad_rows = BadRows(settings.pop("on_bad_row", OnBadRow.refuse), None)
    return load(path, bad_rows, **{"prompts": None, "max_responses": 9, "seed": 0, **settings})


def texts(of: Item) -> list[str]:
    return [response.text for response in of.responses]


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"messages": MESSAGES, "candidates": {"sft": {"response": "a"}, "ppo": {"response": "b"}}}, ["sft", "ppo"]),
        ({"messages": MESSAGES, "responses": {"sft": "a", "ppo": "b"}}, ["sft", "ppo"]),
        ({"prompt": "Hi", "responses": ["a", "b"]}, []),
        ({"prompt": "Hi", "completions": ["a", "b"]}, []),
        ({"prompt": "Hi", "completions": ["a", "b"], "ranks": [1, 0]}, []),
        ({"prompt": "Hi", "completions": ["a", "b"], "scores": [1, 0.5]}, []),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, []),
    ],
    ids=["comparison", "by name", "responses", "completions", "ranks", "scores", "pair"],
)
def test_every_shape_gives_the_prompt_its_responses_and_their_names(
    tmp_path: Path, row: dict[str, Any], names: list[str]
) -> None:
    (found,) = loaded(write(tmp_path / "r.jsonl", [row])).by_key.values()
    assert [message.content for message in found.prompt.messages] == ["Hi"]
    assert sorted(texts(found)) == ["a", "b"]
    assert [name for response in found.responses for name in response.names] == names


def test_rankings_that_the_reward_stage_kept_are_read(tmp_path: Path) -> None:
    prompt = Prompt("sandbox:1", (Message(Role.user, "Hi"),), "greeting", {"gold": 1})
    write_rankings(tmp_path / "rankings.jsonl", {Split.train: [Ranking(prompt, ("a", "b", "a"), (1, 0, 1))]})
    (found,) = loaded(tmp_path / "rankings.jsonl").by_key.values()
    assert found.prompt.id == "sandbox:1"
    assert texts(found) == ["a", "b"]


@pytest.mark.skipif(not SHARED.exists(), reason="the real files are not on this machine")
def test_pairs_of_hh_and_trees_of_openassistant_can_be_judged() -> None:
    pairs = loaded(SHARED / "hh_harmless_base_test.jsonl.gz", on_bad_row=OnBadRow.skip)
    assert len(pairs.by_key) > 2000
    trees = loaded(SHARED / "oasst" / "en_100_tree_first50.jsonl", on_bad_row=OnBadRow.skip)
    assert len(trees.by_key) > 50
    assert max(len(one.responses) for one in trees.by_key.values()) > 3


def test_equal_responses_are_one_with_several_names_and_prompts_with_only_one_are_counted(tmp_path: Path) -> None:
    some = {"prompt": "Same?", "responses": {"base": "no", "sft": "yes", "ppo": " yes\n"}}
    every = {"prompt": "All alike?", "responses": {"base": "yes", "sft": "yes"}}
    found = loaded(write(tmp_path / "r.jsonl", [*compared(1), some, every]))
    assert found.alike == 1
    (merged,) = [one for one in found.by_key.values() if one.prompt.messages[0].content == "Same?"]
    assert [(response.text, response.names) for response in merged.responses] == [
        ("no", ("base",)),
        ("yes", ("sft", "ppo")),
    ]


def test_an_item_has_one_key_whatever_file_and_order_it_stands_in_and_another_for_another_text(tmp_path: Path) -> None:
    rows = compared(1)
    turned = [{**rows[0], "id": "other", "candidates": dict(reversed(rows[0]["candidates"].items()))}]
    changed = compared(1, base="Bad", sft="Fair", ppo="Better")
    keys = [list(loaded(write(tmp_path / "r.jsonl", each)).by_key) for each in (rows, turned, changed)]
    assert keys[0] == keys[1] != keys[2]


def test_an_item_survives_json() -> None:
    assert Item.from_values(json.loads(json.dumps(item(3, task="sums").to_values()))) == item(3, task="sums")


def test_the_seed_draws_prompts_and_responses_and_a_larger_number_of_prompts_goes_on_from_a_smaller(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "r.jsonl", compared(40))
    whole = list(loaded(path).by_key)
    assert list(loaded(path, prompts=7).by_key) == whole[:7]
    assert sorted(loaded(path, seed=1).by_key) == sorted(whole) != list(loaded(path, seed=1).by_key)
    fewer = loaded(path, max_responses=2)
    assert {len(one.responses) for one in fewer.by_key.values()} == {2}
    drawn = {name for one in fewer.by_key.values() for response in one.responses for name in response.names}
    assert drawn == {"base", "sft", "ppo"}


def test_each_labeler_and_item_has_an_order_of_its_own_that_stays() -> None:
    orders = {
        (labeler, number): tuple(response.names[0] for response in shown_order(item(number), labeler, seed=0))
        for labeler in ("Ann", "Ben")
        for number in range(60)
    }
    assert len(set(orders.values())) == 6
    first = [names[0] for names in orders.values()]
    assert all(first.count(name) > 20 for name in ("base", "sft", "ppo"))  # of 120, 40 each
    assert sum(orders["Ann", number] == orders["Ben", number] for number in range(60)) < 30
    assert shown_order(item(5), "Ann", seed=0) == shown_order(item(5), "Ann", seed=0)


def test_half_a_character_does_not_stop_a_page(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": "Hi \ud800", "responses": ["a\udfff", "b"]}])
    (found,) = loaded(path).by_key.values()
    assert (found.prompt.messages[0].content, texts(found)) == ("Hi ?", ["a?", "b"])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "Hi", "response": "a"}, r"r\.jsonl, row 1: it has a prompt and no responses to choose among"),
        ({"prompt": "Hi", "responses": "ab"}, r"`responses` is neither a list of texts nor texts by name"),
        ({"prompt": "Hi", "responses": ["a", 1]}, r"`responses` holds something that is no text"),
        ({"messages": MESSAGES, "candidates": {"sft": {"text": "a"}, "ppo": {}}}, r"`candidates` holds something"),
        ({"prompt": " ", "responses": ["a", "b"]}, r"`prompt` is empty or whitespace; mend the row"),
        ({"responses": ["a", "b"]}, r"its columns are none"),
        ({"prompt": "Hi", "responses": ["a", "a"]}, r"has no prompt with two responses that differ"),
        ([1], r"row 1: it is"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence_with_its_row(tmp_path: Path, row: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        loaded(write(tmp_path / "r.jsonl", [row]))


def test_a_missing_file_is_said_with_the_key() -> None:
    with pytest.raises(UserError, match=r"There is no file nowhere\.jsonl; set label\.responses to one"):
        loaded(Path("nowhere.jsonl"))


def test_a_row_of_no_use_is_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": "Hi"}, *compared(2)])
    with pytest.raises(UserError, match=r"row 1: .* or set data\.on_bad_row=skip"):
        loaded(path)
    assert len(loaded(path, on_bad_row=OnBadRow.skip).by_key) == 2
