from __future__ import annotations

import time

import pytest

from rlhf.config import QualityConfig
from rlhf.data.quality import screen
from rlhf.data.quality.pii import kinds_in
from rlhf.data.records import Demonstration, Document, Message, Prompt, Ranking, Record, Role

EMAIL, PHONE, CARD, SOCIAL, IP = (
    "an e-mail address",
    "a phone number",
    "a payment card number",
    "a social security number",
    "an IP address",
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jane.doe+news@mail.example.org.", EMAIL),
        ("<jane@example.com>", EMAIL),
        ("mailto:J_D@uni-bonn.de?subject=x", EMAIL),
        ("call (212) 555-0143 now", PHONE),
        ("call 212-555-0143.", PHONE),
        ("1-800-555-0143", PHONE),
        ("212.555.0143", PHONE),
        ("+1 212 555 0143", PHONE),
        ("tel=+4930901820", PHONE),
        ("+49 (0)30 901820", PHONE),
        ("+44 20 7946 0958", PHONE),
        ("+7 495 123-45-67", PHONE),
        ("4111 1111 1111 1111", CARD),
        ("card: 4111-1111-1111-1111, exp 12/27", CARD),
        ("5555555555554444", CARD),
        ("3782 822463 10005", CARD),
        ("6011111111111117", CARD),
        ("SSN 219-09-9999", SOCIAL),
        ("Jane,219-09-9999,NY", SOCIAL),
        ("from 8.8.8.8 and 93.184.216.34:80", IP),
        ("http://93.184.216.34/index", IP),
        ("host 2606:2800:220:1:248:1893:25c8:1946", IP),
        ("[2001:4860:4860::8888]:53", IP),
    ],
)
def test_a_form_is_recognised(text: str, kind: str) -> None:
    assert kinds_in(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "on 2021-03-04, 03/04/2021, 4.3.2021 or 2021-03-04T12:30:45.123+01:00",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISBN 9783161484100",
        "version 2.0.1, v1.2.3.4, version 10.20.30.40, Chrome/91.0.4472.124, 1.2.3.4, section 12.3.4.5",
        "12345678 + 1 = 12345679",
        "212-555-0143 = -486",
        "4111111111111111 + 1",
        "3 +4930123456",
        "2 * 4111111111111111",
        "1000 - 212-555-0143",
        "12345678 +12345678",
        "x = 4111111111111112",
        "4111111111111111.5 and 0.4111111111111111",
        "$1,234,567.89 or EUR 12.345.678,90 or 1 234 567 890",
        "+37.7749, -122.4194",
        "+12.3456789",
        "pages 123-456, 1990-2000",
        "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000",
        "123-456-7890",
        "192.168.0.1, 10.0.0.1, 127.0.0.1, 255.255.255.0, 0.0.0.0, 256.300.1.999",
        "std::vector, a::b, dead::beef, 12:30:45, ::1, fe80::1, 2001:db8::1, 00:1a:2b:3c:4d:5e",
        "OID 1.3.6.1.4.1.311.21",
        "icon@2x.png and lodash@4.17.21 and git@github.com:a/b and @jane and a @ b.com",
        "0000 0000 0000 0000",
        "12 + 7 - 3 * (4 / 2) = 15",
        "order 20210304123456789012345",
        "UUID 550e8400-e29b-41d4-a716-446655440000",
    ],
)
def test_other_numbers_are_no_ones(text: str) -> None:
    assert kinds_in(text) == []


@pytest.mark.parametrize("unit", ["a", "a.", "1", "1 ", "+1", "1-", "1.", "@", "a@", "2001:", "f:", "(", "+1("])
def test_a_hostile_text_takes_no_time(unit: str) -> None:
    start = time.perf_counter()
    kinds_in(unit * 20_000)
    kinds_in(unit * 20_000 + "!")
    assert time.perf_counter() - start < 3


def asked(text: str) -> Prompt:
    return Prompt("", (Message(Role.user, text),))


@pytest.mark.parametrize(
    "record",
    [
        asked("I am jane@mail.org, 219-09-9999"),
        Demonstration(asked("hi"), "jane@mail.org 219-09-9999"),
        Demonstration(asked("jane@mail.org"), "219-09-9999"),
        Ranking(asked("hi"), ("no", "jane@mail.org 219-09-9999"), (0, 1)),
        Document("jane@mail.org 219-09-9999"),
        Prompt("", (Message(Role.system, "jane@mail.org 219-09-9999"), Message(Role.user, "hi"))),
    ],
)
def test_the_reason_names_the_kinds_and_not_the_values(record: Record) -> None:
    [reason] = screen([record], [False], QualityConfig(pii=True))
    assert reason == "it holds a social security number and an e-mail address"


def test_pii_is_left_alone_unless_asked_for() -> None:
    assert screen([asked("jane@mail.org")], [False], QualityConfig()) == [None]
