"""A reward function is found, checked before anything loads, and believed only where it gives one number a response."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.errors import UserError
from rlhf.ppo.reward_fn import load_reward_fn
from tests.support.fakes import prompt

RECORDS = [prompt("one", 1), prompt("two", 2)]
SCORE = "def score(prompts, responses, records):\n    return [float(len(r)) for r in responses]\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a module into the current folder, which is not on sys.path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path not in ("", str(tmp_path))])

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        return path

    return write


def refusal(path: str) -> str:
    with pytest.raises(UserError) as caught:
        load_reward_fn(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"ppo.reward_fn={path}")
    return message


def test_a_function_in_the_current_folder_is_found_and_called(write: Callable[[str, str], Path]) -> None:
    write("fn_plain", SCORE)
    assert load_reward_fn("fn_plain:score")(["p", "q"], ["a", "abc"], RECORDS) == [1.0, 3.0]


def test_it_is_given_prompts_responses_and_records_in_their_order(write: Callable[[str, str], Path]) -> None:
    write(
        "fn_order",
        "def score(prompts, responses, records):\n"
        "    assert prompts == ['p', 'q'] and responses == ['a', 'b']\n"
        "    return [int(record.id.split(':')[1]) for record in records]\n",
    )
    assert load_reward_fn("fn_order:score")(("p", "q"), ("a", "b"), RECORDS) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("name", "source", "path", "says"),
    [
        ("fn_other", SCORE, "fn_absent:score", "there is no module fn_absent in "),
        ("fn_other", SCORE, "fn_absent.deeper:score", "there is no module fn_absent in "),
        ("fn_named", SCORE, "fn_named:mark", "has no mark"),
        ("fn_number", "score = 3\n", "fn_number:score", "score is int, not a function"),
        ("fn_few", "def score(responses): ...\n", "fn_few:score", "score(responses) cannot be called with"),
        ("fn_syntax", "def score(:\n", "fn_syntax:score", "fn_syntax.py:1 (SyntaxError"),
        ("fn_breaks", "x = 1\nraise ValueError('boom')\n", "fn_breaks:score", "fn_breaks.py:2 (ValueError: boom)"),
        ("fn_needs", "import not_installed_at_all\n", "fn_needs:score", "No module named 'not_installed_at_all'"),
    ],
)
def test_what_cannot_be_called_is_one_sentence(
    write: Callable[[str, str], Path], name: str, source: str, path: str, says: str
) -> None:
    write(name, source)
    assert says in refusal(path)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("[1.0]", "returned 1 scores for 2 responses"),
        ("[1.0, 2.0, 3.0]", "returned 3 scores for 2 responses"),
        ("None", "returned NoneType"),
        ("'12'", "returned str"),
        ("[1.0, float('nan')]", r"returned nan for row 1 \(prompt test:2\)"),
        ("[float('inf'), 1.0]", r"returned inf for row 0 \(prompt test:1\)"),
        ("[1.0, 'good']", r"returned 'good' for row 1 \(prompt test:2\)"),
        ("[None, 1.0]", "returned None for row 0"),
    ],
)
def test_an_answer_that_is_no_number_a_response_is_refused_with_its_row(
    write: Callable[[str, str], Path], returned: str, says: str
) -> None:
    name = f"fn_{abs(hash(returned))}"
    write(name, f"def score(prompts, responses, records):\n    return {returned}\n")
    function = load_reward_fn(f"{name}:score")
    with pytest.raises(UserError, match=f"ppo.reward_fn={name}:score {says}"):
        function(["p", "q"], ["a", "b"], RECORDS)


@pytest.mark.parametrize("returned", ["torch.tensor([1.0, 2.0])", "torch.tensor([1, 2]).numpy()", "(True, 2)"])
def test_tensors_arrays_and_truths_are_numbers(write: Callable[[str, str], Path], returned: str) -> None:
    name = f"fn_{abs(hash(returned))}"
    write(name, f"import torch\ndef score(prompts, responses, records):\n    return {returned}\n")
    assert load_reward_fn(f"{name}:score")(["p", "q"], ["a", "b"], RECORDS) == [1.0, 2.0]


def test_what_the_function_raises_keeps_its_traceback_and_gets_its_name(write: Callable[[str, str], Path]) -> None:
    write("fn_raises", "def score(prompts, responses, records):\n    return 1 / 0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        load_reward_fn("fn_raises:score")(["p"], ["a"], RECORDS[:1])
    assert "fn_raises:score" in caught.value.__notes__[0]


def test_hash_is_of_the_file_named_and_the_file_the_function_is_written_in(write: Callable[[str, str], Path]) -> None:
    inner = write("fn_inner", SCORE)
    write("fn_outer", "from fn_inner import score\n")
    before = [load_reward_fn(f"{name}:score").source_hash for name in ("fn_inner", "fn_outer")]
    inner.write_text(SCORE.replace("len(r)", "2 * len(r)"))
    after = [load_reward_fn(f"{name}:score").source_hash for name in ("fn_inner", "fn_outer")]
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert len({*before, *after}) == 4


def test_methods_and_instances_are_functions_too(write: Callable[[str, str], Path]) -> None:
    write(
        "fn_instance",
        "class Judge:\n"
        "    def __call__(self, prompts, responses, records):\n        return [2.0] * len(responses)\n"
        "    @staticmethod\n    def mark(prompts, responses, records):\n        return [3.0] * len(responses)\n"
        "judge = Judge()\n",
    )
    for name, value in (("judge", 2.0), ("Judge.mark", 3.0)):
        function: Any = load_reward_fn(f"fn_instance:{name}")
        assert function(["p"], ["a"], RECORDS[:1]) == [value]
        assert len(function.source_hash) == 64
