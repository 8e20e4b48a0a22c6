"""Records that hold what identifies a person, by its form: the kinds are named in the reason, never the text.

InstructGPT filtered its training prompts for it (arXiv:2203.02155, section 3.2), by means it does not give. Numbers are
counted only in forms that other numbers rarely take: a prompt full of dates, prices, versions and sums should stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import responses, turns


def personal(records: Survivors) -> Iterator[Found]:
    """Records with e-mail addresses, phone, payment card or US social security numbers, or public IP addresses."""
    for place, record in records:
        texts = [*(turn.content for turn in turns(record)), *responses(record)]
        kinds = sorted({kind for text in texts for kind in kinds_in(text)})
        if kinds:
            yield Found(place, f"it holds {' and '.join(kinds)}")


def kinds_in(text: str) -> list[str]:
    """
    >>> kinds_in("Write to jane@mail.org or call +49 30 901820.")
    ['an e-mail address', 'a phone number']
    """
    if not _ANY_HINT.search(text):
        return []
    return [kind for kind, (hint, holds) in _KINDS.items() if hint.search(text) and holds(text)]


# The local part is bounded, so that a long run of letters is not read again from each of them.
_EMAIL = re.compile(r"(?<![\w.%+-])([A-Za-z0-9._%+-]{1,64})@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w@])")
_IMAGE_SCALE = re.compile(r"\dx\.", re.IGNORECASE)  # icon@2x.png


def _email(text: str) -> bool:
    matches = ((match[1], match[2]) for match in _EMAIL.finditer(text))
    return any(local != "git" and not _IMAGE_SCALE.match(domain) for local, domain in matches)


# Not the end of a longer number, of 1,234 or 0.25 among them.
_START = r"(?<!\d[.,])(?<![\w+-])"
_END = r"(?![\w-]|[.,]\d)"

_CARD = re.compile(
    _START + r"(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{4,5})" + _END,
)
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}"  # Discover
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}"  # UnionPay
)


def _card(text: str) -> bool:
    return any(_is_card(re.sub(r"\D", "", match[0])) for match in _outside_sums(_CARD, text))


def _is_card(digits: str) -> bool:
    return _ISSUERS.fullmatch(digits) is not None and len(set(digits)) > 1 and _luhn(digits)


def _luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1: every second digit from the right doubled, its digits added."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


# Never issued: areas 000, 666 and from 900, group 00, serial 0000.
_SOCIAL = re.compile(_START + r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}" + _END)


def _social(text: str) -> bool:
    return any(True for _ in _outside_sums(_SOCIAL, text))


# In one country's own form only North America's is told from other numbers: (212) 555-0143, 212-555-0143, 212.555.0143.
_NATIONAL = re.compile(
    _START + r"(?<!/)(?:1[ .-])?(?:\([2-9]\d\d\) ?[2-9]\d\d[ .-]|[2-9]\d\d([.-])[2-9]\d\d\1)\d{4}" + _END
)
_INTERNATIONAL = re.compile(r"(?<![\w+)])\+[1-9](?:[ .()-]{0,2}\d){7,14}" + _END)  # E.164: 8 to 15 digits
_DECIMAL = re.compile(r"\+\d+\.\d+")


def _phone(text: str) -> bool:
    return any(True for _ in _outside_sums(_NATIONAL, text)) or any(
        _is_international(match[0]) for match in _outside_sums(_INTERNATIONAL, text)
    )


def _is_international(written: str) -> bool:
    """With as many digits as North America and Russia have, where the number is theirs."""
    digits = re.sub(r"\D", "", written)
    return (digits[0] not in "17" or len(digits) == 11) and _DECIMAL.fullmatch(written) is None


_SUM_BEFORE = re.compile(r"(?:[+*/^×÷]|\d\s*[-+]?)\s*$")
_SUM_AFTER = re.compile(r"\s*(?:[+*/^=×÷]|[-−]\s*\d)")


def _outside_sums(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches that are no operand: what stands before and after them is no operator, nor a number."""
    for match in pattern.finditer(text):
        before = text[max(0, match.start() - 8) : match.start()]
        if not _SUM_BEFORE.search(before) and not _SUM_AFTER.match(text, match.end()):
            yield match


_IPV4 = re.compile(r"(?<![\w.])(?<![A-Za-z]/)(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")  # all that are in use
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:versions?|ver|v|release|build|firmware|section|chapter|clause|part)|§)[\s.:=]*$", re.IGNORECASE
)


def _ip(text: str) -> bool:
    """Public ones: private, local and documentation's addresses are no one's."""
    return any(_is_public(m[0]) for m in _IPV6.finditer(text)) or any(
        not _VERSION_BEFORE.search(text[max(0, m.start() - 16) : m.start()]) and _is_public(m[0])
        # 1.2.3.4 is more often the number of a version or a section.
        for m in _IPV4.finditer(text)
        if len(m[0]) > len("1.2.3.4")
    )


def _is_public(written: str) -> bool:
    try:
        return ipaddress.ip_address(written).is_global
    except ValueError:
        return False


_ANY_HINT = re.compile(r"[\d@]")
# A text without the hint holds none of the kind; looking for it first keeps a million texts cheap.
_KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "an e-mail address": (re.compile("@"), _email),
    "a phone number": (re.compile(r"\+[1-9]|\d{3}[).-] ?\d{3}"), _phone),
    "a payment card number": (re.compile(r"\d{13}|\d{4}[ -]\d{4}"), _card),
    "a social security number": (re.compile(r"\d-\d\d-\d"), _social),
    "an IP address": (re.compile(r"\d\.\d|[0-9A-Fa-f]:"), _ip),
}
