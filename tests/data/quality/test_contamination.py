from __future__ import annotations

import pytest

from rlhf.config import QualityConfig
from rlhf.data.quality import leakage, screen
from rlhf.data.records import Demonstration, Document, Message, Prompt, Ranking, Record, Role

W = [f"w{i}" for i in range(40)]
HELD_OUT = Prompt("eval:7", (Message(Role.user, " ".join(W[:20])),))


def asked(text: str, system: str = "") -> Prompt:
    opening = (Message(Role.system, system),) if system else ()
    return Prompt("", (*opening, Message(Role.user, text)))


def reason(record: Record, held_out: Record = HELD_OUT, words: int = 13) -> str | None:
    """Why a training record is left out; the held-out one stays, before it or after it."""
    config = QualityConfig(contamination_words=words)
    one = screen([held_out, record], [True, False], config)
    other = screen([record, held_out], [False, True], config)
    assert [each is None for each in other] == [each is None for each in one[::-1]]
    assert one[0] is None
    assert leakage([held_out, record], [True, False], words) == (one[1] is not None)
    return one[1]


def shared(text: str) -> list[Record]:
    return [
        asked(text),
        Demonstration(asked("other"), text),
        Ranking(asked("other"), ("no", text), (0, 1)),
        Document(text),
        Demonstration(
            Prompt("", (Message(Role.user, "q"), Message(Role.assistant, text), Message(Role.user, "r"))), "s"
        ),
    ]


@pytest.mark.parametrize("record", shared("before, " + "  ".join(W[4:17]).upper() + "... after"))
def test_thirteen_words_in_a_row_give_a_prompt_away(record: Record) -> None:
    assert reason(record) == "it shares 13 words in a row with eval:7, which is held out"


@pytest.mark.parametrize("record", shared(" ".join(["x", *W[4:16], "x", *W[:12]])))
def test_twelve_do_not(record: Record) -> None:
    assert reason(record) is None


def test_words_out_of_order_do_not() -> None:
    assert reason(asked(" ".join(W[:20][::-1]))) is None


@pytest.mark.parametrize("words", [1, 2, 8, 20])
def test_the_number_of_words_is_the_configs(words: int) -> None:
    assert reason(asked(" ".join(["x", *W[:words], "x"])), words=words) is not None
    assert reason(asked(" ".join(["x", *W[: words - 1], "x"])), words=words) is None


def test_a_short_prompt_is_looked_for_as_a_whole() -> None:
    short = Prompt("eval:8", (Message(Role.user, "Who wrote the Iliad, then?"),))
    found = reason(asked("Tell me: who wrote the iliad then"), short)
    assert found == "it shares 5 words in a row with eval:8, which is held out"
    assert reason(asked("who wrote the iliad"), short) is None
    assert reason(asked("who wrote the odyssey then"), short) is None


def test_a_prompt_under_five_words_is_anyones() -> None:
    assert reason(asked("tell me a joke"), asked("tell me a joke")) is None


def test_the_responses_of_held_out_records_and_system_turns_give_nothing_away() -> None:
    system = " ".join(W[:20])
    held_out = Demonstration(asked("an unheard of question", system), system)
    assert reason(Demonstration(asked("another", system), system), held_out) is None


def test_a_held_out_document_is_its_text() -> None:
    assert reason(asked(" ".join(W[3:17])), Document(" ".join(W))) is not None


def test_held_out_records_never_go_for_it() -> None:
    records: list[Record] = [HELD_OUT, HELD_OUT, Demonstration(HELD_OUT, "x")]
    assert screen(records, [True, True, True], QualityConfig(contamination_words=13)) == [None, None, None]


def test_scripts_without_spaces_count_by_the_character() -> None:
    text = "日本国民は、正当に選挙された国会における代表者を通じて行動し"
    assert reason(asked(text[3:22]), asked(text)) is not None
    assert reason(asked(text[3:12]), asked(text)) is None


def test_what_an_earlier_pass_left_out_of_the_evaluation_gives_no_one_away() -> None:
    held_out = Demonstration(HELD_OUT, "no")
    records: list[Record] = [held_out, asked(" ".join(W[:20]))]
    config = QualityConfig(contamination_words=13, min_response_words=2)
    assert screen(records, [True, False], config)[1] is None
