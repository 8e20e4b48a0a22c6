from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data import phrasings
from rlhf.data.phrasings import Phrasings
from rlhf.data.records import BadRowError, Role, Split
from rlhf.errors import UserError

NLI = r"""
nli:
  phrasings:
    - prompt: "{premise}\nCan we conclude that \"{hypothesis}\"?\nOPTIONS:\n- yes\n- no"
      response: "{label}"
    - {prompt: "Does \"{premise}\" imply \"{hypothesis}\"?", response: "{label}"}
    - {prompt: "{hypothesis}: is it so if {premise}?", response: "{label}"}
    - {prompt: "Given {premise}, is {hypothesis} true?", response: "{label}"}
  values: {label: {0: yes, 1: no}}
"""
ROW = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0, "idx": 7}


def load(tmp_path: Path, text: str) -> Phrasings:
    path = tmp_path / "given.yaml"
    path.write_text(text, encoding="utf-8")
    return phrasings.load(str(path))


def one(tmp_path: Path, prompt: str, row: dict[str, Any], more: str = "") -> str:
    """The prompt of a row in a task of one phrasing."""
    prompt = prompt.replace("\n", "\\n")
    loaded = load(tmp_path, f'a:\n  phrasings:\n    - {{prompt: "{prompt}", response: "{{y}}"}}\n{more}')
    (demonstration,) = loaded.read({"y": "fine", **row}, task="a", number=1, seed=0, held_out=False)
    return demonstration.prompt.messages[0].content


def drawn(loaded: Phrasings, number: int, seed: int = 0, *, held_out: bool = False, task: str = "nli") -> list[int]:
    read = loaded.read(ROW, task=task, number=number, seed=seed, held_out=held_out)
    return [demonstration.prompt.details["phrasing"] for demonstration in read]


def test_a_row_becomes_a_users_turn_and_a_response_in_the_words_of_a_phrasing(tmp_path: Path) -> None:
    loaded = load(tmp_path, NLI)
    number = next(number for number in range(100) if drawn(loaded, number) == [0])
    (demonstration,) = loaded.read(ROW, task="nli", number=number, seed=0, held_out=False)
    (message,) = demonstration.prompt.messages
    assert message.role == Role.user
    assert message.content == 'It rains.\nCan we conclude that "It is wet."?\nOPTIONS:\n- yes\n- no'
    assert demonstration.response == "yes"
    assert (demonstration.prompt.task, demonstration.prompt.split) == ("nli", Split.train)
    assert demonstration.prompt.details == {"phrasing": 0}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  padded \n", "padded"),
        (3, "3"),
        (3.0, "3"),
        (0.5, "0.5"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000"),
        (-2, "-2"),
        (True, "true"),
        (["sun", "rain"], "- sun\n- rain"),
        (["sun"], "- sun"),
        ((1, 2.0), "- 1\n- 2"),
        ("{y} {{z}} %s", "{y} {{z}} %s"),
    ],
)
def test_values_are_written_plainly(tmp_path: Path, value: Any, text: str) -> None:
    assert one(tmp_path, "Of {x}", {"x": value}) == f"Of {text}"


def test_doubled_braces_are_braces_and_columns_may_have_any_name(tmp_path: Path) -> None:
    assert one(tmp_path, "f(x) = {{{x}}} {{}} {Full Text?}", {"x": 1, "Full Text?": "b"}) == "f(x) = {1} {} b"


@given(
    st.text(min_size=1).filter(lambda text: text.strip()),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_whatever_a_row_holds_is_written_as_it_is(text: str, whole: int, number: float) -> None:
    template = phrasings._template("<{a}|{b}|{c}>", "here")
    a, b, c = template.write({"a": text, "b": whole, "c": number}, {})[1:-1].rsplit("|", 2)
    assert a == text.strip()
    assert int(b) == whole
    assert float(c) == number
    assert "e" not in c


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "no column `x`"),
        ({"x": None}, "`x` is empty"),
        ({"x": " \n"}, "`x` is empty"),
        ({"x": float("nan")}, "`x` is empty"),
        ({"x": []}, "`x` is an empty list"),
        ({"x": ["a", ""]}, "`x[1]` is empty"),
        ({"x": [["a"]]}, "`x[0]` is \"['a']\", neither text"),
        ({"x": {"a": 1}}, "neither text, a number nor a list"),
        ({"x": float("inf")}, "neither text, a number nor a list"),
    ],
)
def test_a_row_that_lacks_what_its_phrasing_shows_is_refused_by_column(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadRowError) as refused:
        one(tmp_path, "Of {x}", row)
    assert problem in str(refused.value)


def test_codes_are_named_however_a_table_spells_them(tmp_path: Path) -> None:
    values = "  values: {x: {0: no, 1: yes, true: indeed}}\n"
    for value, name in ((0, "no"), ("0", "no"), (0.0, "no"), (True, "indeed"), ([1, 0], "- yes\n- no")):
        assert one(tmp_path, "{x}", {"x": value}, values) == name
    with pytest.raises(BadRowError, match=r"`x` is '-1', none of 0, 1, true"):
        one(tmp_path, "{x}", {"x": -1}, values)


def test_which_phrasing_depends_on_seed_task_and_row_alone_and_each_is_as_likely(tmp_path: Path) -> None:
    loaded = load(tmp_path, NLI + NLI.replace("nli:", "other:"))
    rows = range(2000)
    first = [drawn(loaded, number)[0] for number in rows]
    assert first == [drawn(loaded, number)[0] for number in rows]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert {number: drawn(loaded, number)[0] for number in shuffled} == dict(zip(rows, first, strict=True))
    for changed in (
        [drawn(loaded, number, seed=1)[0] for number in rows],
        [drawn(loaded, number, task="other")[0] for number in rows],
    ):
        same = sum(a == b for a, b in zip(first, changed, strict=True))
        assert 400 < same < 600  # a quarter, by chance
    counts = Counter(first)
    assert set(counts) == {0, 1, 2, 3}
    assert all(430 < count < 570 for count in counts.values())  # 500 and 3.6 standard deviations


def test_the_last_phrasings_are_seen_in_evaluation_alone(tmp_path: Path) -> None:
    loaded = load(tmp_path, NLI + "  hold_out_phrasings: 2\n")
    assert {drawn(loaded, number)[0] for number in range(100)} == {0, 1}
    assert {drawn(loaded, number, held_out=True)[0] for number in range(100)} == {2, 3}
    (row,) = loaded.read(ROW, task="nli", number=1, seed=0, held_out=True)
    assert row.prompt.split == Split.evaluation


def test_without_held_out_phrasings_evaluation_takes_them_all(tmp_path: Path) -> None:
    loaded = load(tmp_path, NLI)
    assert {drawn(loaded, number, held_out=True)[0] for number in range(100)} == {0, 1, 2, 3}


def test_a_task_that_is_held_out_gives_evaluation_rows_alone(tmp_path: Path) -> None:
    loaded = load(tmp_path, NLI + "  hold_out: true\n" + NLI.replace("nli:", "other:"))
    for held_out in (False, True):
        (row,) = loaded.read(ROW, task="nli", number=1, seed=0, held_out=held_out)
        assert row.prompt.split == Split.evaluation
    (row,) = loaded.read(ROW, task="other", number=1, seed=0, held_out=False)
    assert row.prompt.split == Split.train


@pytest.mark.parametrize("place", ["file", "task"])
def test_expand_gives_every_phrasing_that_the_split_may_see(tmp_path: Path, place: str) -> None:
    text = NLI + "  hold_out_phrasings: 1\n"
    loaded = load(tmp_path, text + ("  expand: all\n" if place == "task" else "expand: all\n"))
    assert drawn(loaded, 1) == [0, 1, 2]
    assert drawn(loaded, 1, held_out=True) == [3]
    if place == "file":
        assert len(drawn(load(tmp_path, text + "  expand: one\nexpand: all\n"), 1)) == 1


def test_a_rows_task_is_its_columns_or_the_only_one_or_the_files(tmp_path: Path) -> None:
    two = NLI + NLI.replace("nli:", "other.en:")
    assert load(tmp_path, NLI).task_of({}, "whatever.csv") == "nli"
    loaded = load(tmp_path, two)
    assert [loaded.task_of({}, file) for file in ("nli.csv", "nli.jsonl.gz", "nli")] == ["nli"] * 3
    assert loaded.task_of({}, "other.en.parquet") == "other.en"
    with pytest.raises(UserError, match=r"x\.csv is named after no task of given\.yaml \(nli, other\.en\)"):
        loaded.task_of({}, "x.csv")
    by_column = load(tmp_path, two + "task_column: kind\n")
    assert by_column.task_of({"kind": "other.en"}, "nli.csv") == "other.en"
    with pytest.raises(BadRowError, match=r"`kind` is .nil., none of the tasks nli, other\.en"):
        by_column.task_of({"kind": "nil"}, "nli.csv")
    with pytest.raises(BadRowError, match="no column `kind`"):
        by_column.task_of({}, "nli.csv")


def test_rows_that_ask_the_same_have_the_same_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, NLI + NLI.replace("nli:", "other:"))
    key = loaded.row_key(ROW, task="nli")
    assert loaded.row_key(dict(reversed({**ROW, "idx": 8, "label": 1}.items())), task="nli") == key
    assert loaded.row_key({**ROW, "premise": "It snows."}, task="nli") != key
    assert loaded.row_key(ROW, task="other") != key


def test_another_files_bytes_have_another_hash(tmp_path: Path) -> None:
    assert load(tmp_path, NLI).sha256 == load(tmp_path, NLI).sha256 != load(tmp_path, NLI + "  hold_out: true\n").sha256


GOOD = '{prompt: "{a}", response: "{b}"}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("expand: all\n", "given.yaml has no tasks"),
        (f"t:\n  phrasing: [{GOOD}]\n", "given.yaml, task t has no setting phrasing; .* Did you mean phrasings?"),
        (f"t:\n  phrasings: [{GOOD}]\n  hold_out: yes\n", "given.yaml, task t: hold_out is yes; use true or false"),
        ("t:\n  phrasings: []\n", "given.yaml, task t has no list of phrasings"),
        ("t:\n", "given.yaml, task t is no mapping"),
        (f"t:\n  phrasings: [{GOOD}]\ntaskcolumn: x\n", "given.yaml, task taskcolumn is no mapping; .* task_column"),
        (f"t:\n  phrasings: [{GOOD}]\ntask_column:\n", "given.yaml: task_column is to be the name of a column"),
        (f"t:\n  phrasings: [{GOOD}]\nexpand: some\n", "given.yaml: expand is some; use one or all"),
        (f"t:\n  phrasings: [{GOOD}, x]\n", "given.yaml, task t, phrasing 1 is no mapping"),
        ('t:\n  phrasings: [{prompt: "{a}", respons: x}]\n', "phrasing 0 has no setting respons; .* response?"),
        ('t:\n  phrasings: [{prompt: "{a}"}]\n', "task t, phrasing 0: its response is missing"),
        ('t:\n  phrasings: [{prompt: " ", response: "{b}"}]\n', "phrasing 0: its prompt is missing"),
        ('t:\n  phrasings: [{prompt: "a {{b}}", response: "{b}"}]\n', "phrasing 0: its prompt names no column"),
        ('t:\n  phrasings: [{prompt: "{a}", response: "b"}]\n', "phrasing 0: its response names no column"),
        ('t:\n  phrasings: [{prompt: "{a", response: "{b}"}]\n', "its prompt has a brace too many or too few"),
        ('t:\n  phrasings: [{prompt: "{a.__class__}", response: "{b}"}]\n', "its prompt holds {a.__class__}; only"),
        ('t:\n  phrasings: [{prompt: "{a[0]}", response: "{b}"}]\n', r"its prompt holds {a\[0\]}; only"),
        ('t:\n  phrasings: [{prompt: "{a!r}", response: "{b}"}]\n', "its prompt holds {a!r}; only"),
        ('t:\n  phrasings: [{prompt: "{a:>9}", response: "{b}"}]\n', "its prompt holds {a:>9}; only"),
        ('t:\n  phrasings: [{prompt: "{}", response: "{b}"}]\n', "its prompt holds {}; only"),
        (f"t:\n  phrasings: [{GOOD}, {GOOD}]\n", "task t: phrasings 0 and 1 have the same prompt"),
        (f"t:\n  phrasings: [{GOOD}]\n  hold_out_phrasings: 1\n", "hold_out_phrasings is 1; use 0 to 0"),
        (f"t:\n  phrasings: [{GOOD}]\n  hold_out_phrasings: -1\n", "hold_out_phrasings is -1; use 0 to 0"),
        (f"t:\n  phrasings: [{GOOD}]\n  values: {{c: {{0: x}}}}\n", "task t: values names the column c"),
        (f"t:\n  phrasings: [{GOOD}]\n  values: {{a: x}}\n", "values.a is to be {code: name}"),
        (f"t:\n  phrasings: [{GOOD}]\n  values: {{a: {{0: }}}}\n", "values.a has no name for 0"),
        (f"t:\n  phrasings: [{GOOD}]\nt:\n  phrasings: [{GOOD}]\n", "given.yaml, line 3: the key t was given before"),
        (
            't:\n  phrasings: [{prompt: "{a}", response: "{b}"}, {prompt: "{b}", response: "{b}"}]\n'
            "  hold_out: true\n  hold_out_phrasings: 1\n",
            "hold_out keeps the whole task",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_task_and_place_before_any_row(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load(tmp_path, text)


def test_the_example_in_the_documentation_is_one_that_loads(tmp_path: Path) -> None:
    assert phrasings.__doc__ is not None
    example = phrasings.__doc__.split("\n\n")[2]
    loaded = load(tmp_path, "\n".join(line.removeprefix("    ") for line in example.splitlines()))
    (row,) = loaded.read(ROW, task="nli", number=1, seed=0, held_out=False)
    assert row.response == "yes"
    assert loaded.task_column == "task"


COLUMNS = {
    "snli": {"premise": "It rains.", "hypothesis": "The street is dry.", "label": 2},
    "sst2": {"sentence": "a quiet wonder", "label": 1},
    "ag_news": {"text": "Shares rose.", "label": 2},
    "mrpc": {"sentence1": "He left.", "sentence2": "He went away.", "label": 1},
    "xsum": {"document": "A long article.", "summary": "It is long."},
    "boolq": {"question": "is ice water", "passage": "Ice is water.", "answer": True},
    "common_gen": {"concepts": ["dog", "ball"], "target": "A dog fetches a ball."},
    "gsm8k": {"question": "What is 2 + 2?", "answer": "4"},
}


ANSWERS = {
    **{"snli": "false", "sst2": "positive", "ag_news": "business", "mrpc": "yes", "xsum": "It is long."},
    **{"boolq": "yes", "common_gen": "A dog fetches a ball.", "gsm8k": "4"},
}


@pytest.mark.parametrize("task", list(COLUMNS))
def test_builtin_phrasings_read_the_columns_of_the_published_sets_and_keep_one_for_evaluation(task: str) -> None:
    builtin = phrasings.load("builtin")
    assert set(builtin.tasks) == set(COLUMNS)
    seen = {
        held_out: {
            builtin.read(COLUMNS[task], task=task, number=n, seed=0, held_out=held_out)[0].prompt.messages[0].content
            for n in range(200)
        }
        for held_out in (False, True)
    }
    assert (len(seen[False]), len(seen[True])) == (5, 1)
    assert not seen[False] & seen[True]
    (demonstration,) = builtin.read(COLUMNS[task], task=task, number=0, seed=0, held_out=False)
    assert demonstration.response == ANSWERS[task]
