from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.evaluation.judges.llm_cache import LLMCache, key_of
from rlhf.runtime.openai_server import Answer

BODY = {"model": "m", "messages": [{"role": "user", "content": "half a pair: \ud800"}], "temperature": 0.0}
ANSWER = Answer("Verdict: A", True, 12, None)


def test_an_answer_is_found_again_by_what_was_asked(tmp_path: Path) -> None:
    cache = LLMCache(str(tmp_path / "new" / "folder"))
    assert cache.empty
    assert cache.find(key_of(BODY)) is None
    cache.keep(key_of(BODY), BODY, ANSWER)
    assert LLMCache(str(cache.folder)).find(key_of(BODY)) == ANSWER
    assert not cache.empty


@pytest.mark.parametrize("change", [{"model": "n"}, {"messages": []}, {"temperature": 0.5}, {"seed": 1}])
def test_another_model_text_or_setting_is_another_question(change: dict[str, object]) -> None:
    assert key_of(BODY | change) != key_of(BODY)
    assert key_of(dict(reversed(BODY.items()))) == key_of(BODY)


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"answer": {"text": "Verdict: A"}}'])
def test_a_damaged_file_is_no_answer(tmp_path: Path, damaged: str) -> None:
    cache = LLMCache(str(tmp_path))
    cache.keep(key_of(BODY), BODY, ANSWER)
    [file] = tmp_path.rglob("*.json")
    file.write_text(damaged)
    assert cache.find(key_of(BODY)) is None


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"set judge\.llm\.cache to another folder"):
        LLMCache(str(tmp_path / "file"))


def test_the_default_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert LLMCache(None).folder == tmp_path / "rlhf" / "llm_judge"
