"""Records in languages that are not asked for, told by py3langid (langid.py: Lui and Baldwin, ACL 2012)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from rlhf.data.quality.libraries import library
from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import responses, spoken
from rlhf.data.records import Record
from rlhf.errors import UserError

FEWEST_LETTERS = 20  # below, a guess is no better than the names in the text
MOST_CHARACTERS = 1000  # of a turn; more costs time and changes no verdict
TIMES_AS_LIKELY = 3.0  # code and mixed texts are a little of many languages
NO_LANGUAGE = "zxx"  # what the model calls lists of numbers, and noise


def languages(records: Survivors, codes: Collection[str]) -> Iterator[Found]:
    """Records whose conversation and responses, taken together, are in none of the languages `codes`.

    Left out is what is 3 times as likely in one other language as in those asked for together. A text of under 20
    letters cannot be told and stays. Raises UserError when py3langid is missing.
    """
    asked = ",".join(codes)
    for place, record in records:
        language = _other_language("\n".join(part[:MOST_CHARACTERS] for part in _texts(record)), codes)
        if language is not None:
            yield Found(place, f"its language is taken for {language}, none of data.quality.languages=[{asked}]")


def check_languages(codes: Collection[str]) -> None:
    """Raises UserError for codes that are no language py3langid knows, or when it is missing."""
    known = sorted(set(_identifier().labels) - {NO_LANGUAGE})
    unknown = [code for code in codes if code not in known]
    if unknown:
        raise UserError(
            f"data.quality.languages has {', '.join(map(repr, unknown))}, which no known language goes by; "
            f"use ISO 639-1 codes among {', '.join(known)}."
        )


def _texts(record: Record) -> tuple[str, ...]:
    return (*spoken(record), *responses(record))


def _other_language(text: str, codes: Collection[str]) -> str | None:
    """The language it is in, where that is surely none of `codes`; else None."""
    if sum(map(str.isalpha, text)) < FEWEST_LETTERS:
        return None
    ranked = _identifier().rank(text)
    language, likelihood = ranked[0]
    asked = sum(each for code, each in ranked if code in codes)
    return language if language != NO_LANGUAGE and likelihood > TIMES_AS_LIKELY * asked else None


@cache
def _identifier() -> Any:
    """Of ISO 639-1's languages: it takes short English for Nigerian Pidgin (pcm), Chinese for Wu (wuu), otherwise."""
    langid = library("py3langid.langid", "languages")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages([code for code in identifier.labels if len(code) == 2 or code == NO_LANGUAGE])
    return identifier
