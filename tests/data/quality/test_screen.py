from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.config import QualityConfig
from rlhf.data.quality import check_languages, duplicates_of, leakage, screen
from rlhf.data.quality.words import run_hashes, word_hashes, words
from rlhf.data.records import Demonstration, Document, Message, Prompt, Ranking, Record, Role
from rlhf.errors import UserError

HARMLESS = Path("/work/shared/data/hh_harmless_base_test.jsonl.gz")
EVERYTHING = QualityConfig(
    duplicates=True,
    near_duplicates=0.7,
    common_prefix=12,
    min_response_words=1,
    max_response_words=30,
    languages=["en", "de"],
    contamination_words=6,
    max_prompts_per_user=3,
    pii=True,
)


def asked(text: str, *, user: str = "", id: str = "", system: str = "") -> Prompt:
    opening = (Message(Role.system, system),) if system else ()
    return Prompt(id, (*opening, Message(Role.user, text)), user=user)


def reasons(records: list[Record], **settings: Any) -> list[str | None]:
    return screen(records, [False] * len(records), QualityConfig(**settings))


# --- words


def test_words_are_folded_and_without_punctuation() -> None:
    assert words("Don't STOP: 1,000 Straße — ﬁne_x!") == ["dont", "stop", "1000", "strasse", "fine_x"]
    assert words("ไทย 日本") == ["ไ", "ท", "ย", "日", "本"]
    assert words("... !?") == []


def test_runs_of_words_are_equal_where_the_words_are() -> None:
    a, b = word_hashes("a b c d e"), word_hashes("x b c d y")
    assert len(run_hashes(a, [3])) == 3
    assert len(np.intersect1d(run_hashes(a, [3]), run_hashes(b, [3]))) == 1
    assert len(np.intersect1d(run_hashes(a, [2, 3]), run_hashes(b, [2, 3]))) == 3
    assert len(run_hashes(a, [6])) == len(run_hashes(a, [])) == 0
    assert len(np.intersect1d(run_hashes(word_hashes("a b"), [2]), run_hashes(word_hashes("b a"), [2]))) == 0


# --- prefixes


def test_a_prompt_that_begins_as_another_is_left_out() -> None:
    records: list[Record] = [
        asked("Please translate  this: cat", id="a"),
        asked("please translate this: dog", id="b"),
        asked("Please tell me", id="c"),
    ]
    found = reasons(records, common_prefix=16)
    assert found == [None, "its prompt shares its first 16 characters with that of a", None]
    assert reasons(records, common_prefix=40) == [None, None, None]
    assert reasons(records, common_prefix=6)[2] is not None


def test_records_of_the_very_same_prompt_keep_each_other_company() -> None:
    prompt, other = asked("a long enough question"), asked("a long enough query")
    records: list[Record] = [Demonstration(prompt, "x"), Ranking(prompt, ("x", "y"), (0, 1)), prompt]
    assert reasons([*records, Demonstration(other, "x"), other], common_prefix=10) == [
        None,
        None,
        None,
        *["its prompt shares its first 10 characters with that of record 1"] * 2,
    ]


def test_a_common_system_turn_is_no_common_prefix() -> None:
    records: list[Record] = [asked(text, system="You are a helpful assistant.") for text in ("first one", "second one")]
    assert reasons(records, common_prefix=5) == [None, None]


def test_a_chat_with_one_more_turn_begins_as_the_shorter_one() -> None:
    said = (Message(Role.user, "What is the tallest mountain?"), Message(Role.assistant, "Everest."))
    records: list[Record] = [Prompt("", said[:1]), Prompt("", (*said, Message(Role.user, "And then?")))]
    assert reasons(records, common_prefix=20)[1] is not None


def test_documents_have_no_prompt_to_share() -> None:
    assert reasons([Document("the same opening a"), Document("the same opening b")], common_prefix=5) == [None, None]


# --- lengths


def test_every_response_has_to_be_of_a_length_that_is_asked_for() -> None:
    records: list[Record] = [
        Demonstration(asked("q"), "one two"),
        Demonstration(asked("q"), "one two three"),
        Ranking(asked("q"), ("one two three", "one two three four five"), (0, 1)),
        Ranking(asked("q"), ("one two three", "one"), (0, 1)),
        asked("q"),
        Document("one"),
    ]
    assert reasons(records, min_response_words=3, max_response_words=4) == [
        "a response has 2 words, fewer than data.quality.min_response_words=3",
        None,
        "a response has 5 words, more than data.quality.max_response_words=4",
        "a response has 1 words, fewer than data.quality.min_response_words=3",
        None,
        "a response has 1 words, fewer than data.quality.min_response_words=3",
    ]


# --- languages

TEXTS = {
    "en": "Could you please explain why the sky appears blue during the day?",
    "de": "Könntest du bitte erklären, warum der Himmel am Tag blau erscheint?",
    "fr": "Pourrais-tu expliquer pourquoi le ciel paraît bleu pendant la journée ?",
    "zh": "请你解释一下为什么白天的天空看起来是蓝色的,而傍晚却变成了红色?",
}


@pytest.mark.parametrize("code", list(TEXTS))
def test_only_the_languages_asked_for_stay(code: str) -> None:
    records: list[Record] = [asked(text) for text in TEXTS.values()]
    found = reasons(records, languages=[code])
    assert [reason is None for reason in found] == [each == code for each in TEXTS]
    left_out = next(reason for reason in found if reason is not None)
    assert left_out.endswith(f", none of data.quality.languages=[{code}]")


@pytest.mark.parametrize(
    "text", ["12 + 7 = 19", "Jean-Luc Picard", "é?", "!" * 100, "asdf qwer zxcv uiop hjkl", "01" * 50]
)
def test_a_text_that_cannot_be_told_stays(text: str) -> None:
    assert reasons([asked(text)], languages=["zh"]) == [None]


def test_responses_count_with_the_prompt() -> None:
    translation = Demonstration(asked("Say it in French."), " ".join([TEXTS["fr"]] * 3))
    assert reasons([translation], languages=["fr"]) == [None]


@pytest.mark.parametrize("code", ["english", "EN", "xx", "zxx", ""])
def test_an_unknown_language_is_refused_with_those_that_are_known(code: str) -> None:
    with pytest.raises(UserError, match=r"data\.quality\.languages has .* use ISO 639-1 codes among .*, de, .*, en, "):
        check_languages(["de", code])
    with pytest.raises(UserError, match=r"data\.quality\.languages"):
        reasons([asked("x")], languages=["de", code])
    check_languages(["de", "en"])


# --- users


def test_a_users_prompts_after_the_first_few_are_left_out() -> None:
    a, b, c = (asked(text, user="jane") for text in "abc")
    records: list[Record] = [a, Demonstration(b, "x"), c, Demonstration(a, "y"), b, Ranking(c, ("x", "y"), (0, 1))]
    records += [asked(text, user="joe") for text in "ab"] + [asked(str(i)) for i in range(9)] + [Document("x")]
    found = reasons(records, max_prompts_per_user=2)
    reason = "its user has 2 earlier prompts (data.quality.max_prompts_per_user=2)"
    assert found == [None, None, reason, None, None, reason, *[None] * 12]


# --- all of them

# A small alphabet of words, so that records collide in every way; and any text at all, lone surrogates among it.
SMALL = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "Hund", "+49 30 901820", "{0}", "?"]), min_size=1)
TEXT = SMALL.map(" ".join) | st.text(st.characters(), min_size=1, max_size=40)
TURNS = st.lists(TEXT, min_size=1, max_size=3)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    turns = draw(TURNS)
    roles = [Role.user if (len(turns) - i) % 2 else Role.assistant for i in range(len(turns))]
    said = tuple(Message(role, text) for role, text in zip(roles, turns, strict=True))
    return Prompt(draw(st.sampled_from(["", "a{b}", "c"])), said, user=draw(st.sampled_from(["", "jane", "\ud800"])))


def rankings() -> st.SearchStrategy[Ranking]:
    completions = st.lists(TEXT, min_size=2, max_size=4)
    return st.builds(
        lambda prompt, texts: Ranking(prompt, tuple(texts), tuple(range(len(texts)))), prompts(), completions
    )


RECORD = st.one_of(prompts(), st.builds(Demonstration, prompts(), TEXT), rankings(), st.builds(Document, TEXT))
RECORDS = st.lists(st.tuples(RECORD, st.booleans()), max_size=12)


@settings(max_examples=50, deadline=None)
@given(RECORDS)
def test_screening_again_leaves_out_nothing_more_whatever_the_records(
    pairs: list[tuple[Record, bool]],
) -> None:
    records, held_out = [record for record, _ in pairs], np.array([held for _, held in pairs], dtype=bool)
    found = screen(records, held_out, EVERYTHING)
    assert len(found) == len(records)
    stays = [i for i, reason in enumerate(found) if reason is None]
    again = screen([records[i] for i in stays], held_out[stays], EVERYTHING)
    assert again == [None] * len(stays)
    for i, reason in enumerate(found):
        assert reason is None or "words in a row" not in reason or not held_out[i]
        assert reason is None or "{other}" not in reason
    duplicates_of(records)
    leakage(records, held_out)


def test_nothing_is_left_out_unless_asked_for() -> None:
    assert reasons([Document("jane@mail.org")] * 3) == [None] * 3


def test_a_record_goes_for_the_first_pass_that_finds_it_and_collides_with_none_after() -> None:
    records: list[Record] = [
        Demonstration(asked("what is the weather like today"), "no"),
        Demonstration(asked("what is the weather like tomorrow"), "it will rain all day"),
    ]
    found = reasons(records, min_response_words=2, common_prefix=10)
    assert "shares its first 10" in str(found[1])  # prefixes come before lengths
    found = reasons(records, min_response_words=2, contamination_words=3)
    assert found == ["a response has 1 words, fewer than data.quality.min_response_words=2", None]


def test_records_are_read_anew_and_never_kept() -> None:
    class Decoded:
        """A sequence on disk: every reading makes new records."""

        reads = 0

        def __iter__(self) -> Any:
            Decoded.reads += 1
            return (asked(f"question {i // 2} is this") for i in range(6))

    found = screen(Decoded(), np.zeros(6, dtype=bool), QualityConfig(duplicates=True))
    assert [reason is None for reason in found] == [True, False] * 3
    assert Decoded.reads == 2  # one pass, and the names of the originals


def test_no_records_are_no_problem() -> None:
    assert screen([], [], EVERYTHING) == []


def test_results_do_not_depend_on_the_process() -> None:
    code = (
        "from rlhf.config import QualityConfig; from rlhf.data.quality import screen;"
        "from rlhf.data.records import Document; import random; r = random.Random(0);"
        "base = [r.choices('abcdefghijklmnop', k=60) for _ in range(30)];"
        "records = [Document(' '.join(b[:60 - k] + ['z'] * k)) for b in base for k in range(0, 20, 2)];"
        "print(screen(records, [False] * len(records), QualityConfig(near_duplicates=0.8)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "near duplicate" in outputs.pop()


@pytest.mark.parametrize(
    ("library", "setting", "value"), [("datasketch", "near_duplicates", 0.8), ("py3langid", "languages", ["en"])]
)
def test_a_missing_library_is_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, library: str, setting: str, value: Any
) -> None:
    from rlhf.data.quality import languages

    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.langid", None)
    languages._identifier.cache_clear()
    with pytest.raises(UserError, match=rf"data\.quality\.{setting} needs {library}.*`pip install {library}`"):
        reasons([Document("x y z")], **{setting: value})


# --- a real file


@pytest.mark.skipif(not HARMLESS.exists(), reason="the real files are not on this machine")
def test_dialogues_of_hh() -> None:
    rows = [json.loads(line) for line in gzip.decompress(HARMLESS.read_bytes()).splitlines()]
    records: list[Record] = []
    for row in rows[:600]:
        before, _, reply = row["chosen"].rpartition("\n\nAssistant:")
        records.append(Demonstration(asked(before.strip()), reply.strip() or "-"))
    found = reasons(records, languages=["en"], pii=True, duplicates=True, near_duplicates=0.8)
    kinds = [reason for reason in found if reason is not None]
    assert not [reason for reason in kinds if "language" in reason]  # all are in English
    assert len(kinds) < 20
    held_out = [i % 5 == 0 for i in range(len(records))]
    leaked = leakage([*records, records[0]], [*held_out, False])
    assert leaked == leakage(records, held_out) + 1
