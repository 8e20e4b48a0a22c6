from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import LLMJudgeConfig
from rlhf.data.records import Prompt
from rlhf.errors import UserError
from rlhf.evaluation.judges.llm import Judged, LLMJudge, annotation_rows, usage_line
from rlhf.evaluation.published.verdicts import read
from rlhf.evaluation.published.verdicts_summary import summarise
from tests.support.fake_server import FakeServer, server, shown
from tests.support.fakes import prompt

__all__ = ["server"]  # the fixture
PROMPTS = [prompt(f"question {i}", i) for i in range(4)]
SFT = ["good", "bad", "same", "good"]
PPO = ["bad", "good", "same", "good!"]


def says(choose: Callable[[str, str], str], usage: tuple[int, int] | None = (100, 10)) -> Any:
    """An answer function of FakeServer."""
    return lambda server, body, times: (200, server.completion(body, choose(*shown(body)), usage=usage))


def prefers_good(a: str, b: str) -> str:
    points = [("good" in text) + ("!" in text) for text in (a, b)]
    verdict = "tie" if points[0] == points[1] else "A" if points[0] > points[1] else "B"
    return f"One of them is good.\nVerdict: {verdict}"


def judge(server: FakeServer, cache: Path, **settings: Any) -> LLMJudge:
    config = LLMJudgeConfig(**{"url": server.url, "model": "m", "retries": 2, "cache": str(cache), **settings})
    return LLMJudge(config, seed=5, bars=False, sleep=lambda _: None)


def compare(server: FakeServer, cache: Path, prompts: list[Prompt] = PROMPTS, **settings: Any) -> Judged:
    return judge(server, cache, **settings).compare(prompts, {"sft": SFT, "ppo": PPO}, "sft")


def test_each_pair_is_shown_in_both_orders_and_identical_ones_not_at_all(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(prefers_good)
    judged = compare(server, tmp_path)
    assert judged.verdicts["ppo"].wins == [0.0, 1.0, 0.5, 1.0]
    assert judged.verdicts["ppo"].identical == [False, False, True, False]
    assert judged.verdicts["sft"].wins == [0.5] * 4
    assert judged.verdicts["sft"].identical == [True] * 4
    asked = [shown(body) for _, body, _ in server.asked]
    assert sorted(asked) == sorted(
        [("good", "bad"), ("bad", "good"), ("good", "bad"), ("bad", "good"), ("good", "good!"), ("good!", "good")]
    )
    assert {path for path, _, _ in server.asked} == {"/v1/chat/completions"}
    assert all("question" in body["messages"][0]["content"] for _, body, _ in server.asked)


def test_verdicts_that_differ_between_the_orders_are_counted_ties(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(lambda a, b: "Verdict: A")
    said = compare(server, tmp_path).verdicts["ppo"]
    assert said.wins == [0.5] * 4
    assert said.inconsistent == [True, True, False, True]
    assert (said.first, said.decided) == ([2, 2, 0, 2], [2, 2, 0, 2])


def test_a_winner_in_one_order_and_a_tie_in_the_other_differ_too(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(lambda a, b: "Verdict: B" if b == "good!" else "Verdict: tie")
    said = compare(server, tmp_path).verdicts["ppo"]
    assert said.wins == [0.5] * 4
    assert said.inconsistent == [False, False, False, True]
    assert (said.first, said.decided) == ([0, 0, 0, 0], [0, 0, 0, 1])


def test_an_answer_that_cannot_be_read_leaves_its_prompt_without_a_verdict(server: FakeServer, tmp_path: Path) -> None:
    def unreadable(a: str, b: str) -> str:
        return "I like B." if (a, b) == ("good!", "good") else prefers_good(a, b)

    server.answer = says(unreadable)
    judged = compare(server, tmp_path)
    said = judged.verdicts["ppo"]
    assert math.isnan(said.wins[3])
    assert said.wins[:3] == [0.0, 1.0, 0.5]
    assert (said.failures, said.inconsistent) == ([0, 0, 0, 1], [False] * 4)
    assert (said.first[3], said.decided[3]) == (0, 0)  # one order alone would say nothing of a place
    assert judged.usage["parse_failures"] == 1
    assert [row["verdict"] for row in judged.answers if row["id"] == "test:3"] == [None, "B"]


def test_an_answer_that_was_cut_is_not_read(server: FakeServer, tmp_path: Path) -> None:
    server.answer = lambda server, body, times: (200, server.completion(body, "Verdict: A", "length"))
    judged = compare(server, tmp_path)
    assert judged.usage["parse_failures"] == 6
    assert [row["finished"] for row in judged.answers] == [False] * 6


def test_what_was_answered_is_never_asked_again(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(prefers_good)
    first = compare(server, tmp_path, input_price=1.0, output_price=2.0)
    server.answer = lambda server, body, times: (500, {})
    again = compare(server, tmp_path, input_price=1.0, output_price=2.0)
    assert len(server.asked) == 6
    assert again.verdicts == first.verdicts
    assert (first.usage["requests"], first.usage["cached"]) == (6, 0)
    assert (again.usage["requests"], again.usage["cached"]) == (0, 6)
    assert (again.usage["prompt_tokens"], again.usage["cost"]) == (0, 0.0)
    assert all(row["cached"] for row in again.answers)


def test_another_model_setting_or_wording_is_asked_afresh(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(prefers_good)
    compare(server, tmp_path)
    for count, change in enumerate([{"model": "n"}, {"temperature": 0.5}, {"max_tokens": 9}, {"temperature": None}], 2):
        compare(server, tmp_path, **change)
        assert len(server.asked) == 6 * count
    words = tmp_path / "words.txt"
    words.write_text(
        "{prompt} <response_a>\n{response_a}\n</response_a>\n\n<response_b>\n{response_b}\n</response_b>Verdict:"
    )
    compare(server, tmp_path, prompt=str(words), parallel=2, retries=9)
    assert len(server.asked) == 36
    assert server.asked[-1][1]["messages"][0]["content"].startswith("question")


def test_what_is_sent_beside_the_text(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(prefers_good)

    def sent(**settings: Any) -> dict[str, Any]:
        compare(server, tmp_path, **settings)
        return {key: value for key, value in server.asked[-1][1].items() if key != "messages"}

    assert sent() == {"model": "m", "max_tokens": 512, "temperature": 0.0}
    assert sent(temperature=0.7) == {"model": "m", "max_tokens": 512, "temperature": 0.7, "seed": 5}
    assert sent(temperature=None, max_tokens=99, limit_name="max_completion_tokens") == {
        "model": "m",
        "max_completion_tokens": 99,
    }


def test_candidates_that_say_the_same_are_asked_about_once(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(prefers_good)
    judged = judge(server, tmp_path).compare(PROMPTS, {"sft": SFT, "ppo": PPO, "twin": PPO}, "sft")
    assert len(server.asked) == 6
    assert judged.verdicts["twin"] == judged.verdicts["ppo"]
    assert len(judged.answers) == 12


def test_tokens_and_cost_are_those_of_this_run(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(prefers_good)
    usage = compare(server, tmp_path, input_price=2.5, output_price=10.0).usage
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["requests_without_usage"]) == (600, 60, 0)
    assert usage["cost"] == pytest.approx((600 * 2.5 + 60 * 10) / 1e6)
    assert "$0.0021" in usage_line(usage)
    assert compare(server, tmp_path / "free").usage["cost"] is None


def test_tokens_that_are_not_counted_leave_the_cost_unknown(server: FakeServer, tmp_path: Path) -> None:
    server.answer = says(prefers_good, usage=None)
    usage = compare(server, tmp_path, input_price=2.5).usage
    assert (usage["prompt_tokens"], usage["requests_without_usage"], usage["cost"]) == (0, 6, None)
    assert "6 requests whose tokens the server does not count" in usage_line(usage)


def test_a_server_that_fails_now_and_then_is_asked_again(server: FakeServer, tmp_path: Path) -> None:
    def flaky(server: FakeServer, body: dict[str, Any], times: int) -> tuple[int, Any]:
        return (429, {}) if times == 0 else says(prefers_good)(server, body, times)

    server.answer = flaky
    judged = compare(server, tmp_path)
    assert judged.verdicts["ppo"].wins == [0.0, 1.0, 0.5, 1.0]
    assert len(server.asked) == 12
    assert judged.usage["requests"] == 6


def test_a_server_that_goes_on_failing_keeps_what_was_answered(server: FakeServer, tmp_path: Path) -> None:
    def dies(server: FakeServer, body: dict[str, Any], times: int) -> tuple[int, Any]:
        return (500, {}) if "good!" in shown(body) else says(prefers_good)(server, body, times)

    server.answer = dies
    with pytest.raises(UserError, match=r"answers 500.*judge\.llm\.url.*asks for the others alone"):
        compare(server, tmp_path, parallel=1)
    server.answer = says(prefers_good)
    usage = compare(server, tmp_path).usage
    assert (usage["requests"], usage["cached"]) == (2, 4)


_ROOT = Path(__file__).resolve().parents[3]
_COMPARES = f"""
import sys
from rlhf.config import LLMJudgeConfig
from rlhf.evaluation.judges.llm import LLMJudge
from tests.support.fakes import prompt
config = LLMJudgeConfig(url=sys.argv[1], model="m", cache=sys.argv[2], parallel=1)
prompts = [prompt(f"question {{i}}", i) for i in range(4)]
LLMJudge(config, seed=5, bars=False).compare(prompts, {{"sft": {SFT}, "ppo": {PPO}}}, "sft")
"""


def test_a_comparison_that_was_killed_asks_nothing_twice(server: FakeServer, tmp_path: Path) -> None:
    killed: list[subprocess.Popen[bytes]] = []

    def kills_at_the_fourth(server: FakeServer, body: dict[str, Any], times: int) -> tuple[int, Any]:
        if len(server.asked) == 4:
            os.kill(killed[0].pid, signal.SIGKILL)
        return says(prefers_good)(server, body, times)

    server.answer = kills_at_the_fourth
    killed.append(subprocess.Popen([sys.executable, "-c", _COMPARES, server.url, str(tmp_path)], cwd=_ROOT))
    assert killed[0].wait(timeout=120) == -signal.SIGKILL
    server.answer = says(prefers_good)
    usage = compare(server, tmp_path).usage
    assert (usage["requests"], usage["cached"]) == (3, 3)


def test_a_server_that_is_down_is_refused_only_where_nothing_is_cached(
    server: FakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = says(prefers_good)
    judge(server, tmp_path / "full").check()
    compare(server, tmp_path / "full")
    nobody = {"url": "http://127.0.0.1:9/v1"}
    with pytest.raises(UserError, match=r"does not answer .*judge\.llm\.url"):
        judge(server, tmp_path / "empty", **nobody).check()
    assert caplog.messages == []
    judge(server, tmp_path / "full", **nobody).check()
    [warning] = caplog.messages
    assert "does not answer" in warning
    assert str(tmp_path / "full") in warning
    assert compare(server, tmp_path / "full", **nobody).usage["cached"] == 6


def test_annotations_give_the_same_win_rate_where_others_read_them(server: FakeServer, tmp_path: Path) -> None:
    def unreadable(a: str, b: str) -> str:
        return "no" if "bad" in (a, b) and a == "good" else prefers_good(a, b)

    server.answer = says(unreadable)
    judged = compare(server, tmp_path / "cache")
    rows = annotation_rows(PROMPTS, {"sft": SFT, "ppo": PPO}, judged.verdicts, baseline="sft", annotator="m")
    assert rows[3] == {
        "instruction": "question 3",
        "output_1": "good",
        "generator_1": "sft",
        "output_2": "good!",
        "generator_2": "ppo",
        "annotator": "m",
        "preference": 2.0,
    }
    assert [row["preference"] for row in rows] == [None, None, 1.5, 2.0]
    file = tmp_path / "verdicts.json"
    file.write_text(json.dumps(rows))
    published = summarise(read(str(file)), bootstrap_samples=50, seed=0)
    assert published["win_rate"] == pytest.approx(75)
    assert (published["n"], published["without_verdict"]) == (2, 2)


@pytest.fixture
def real_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """url and model of `transformers serve` with a tiny model; RLHF_SERVE_PYTHON is a Python that has what it needs."""
    from tests.support.tiny import save_tiny_model  # imports torch, which the other tests here do without

    python = os.environ.get("RLHF_SERVE_PYTHON", sys.executable)
    needs = "import transformers, fastapi, uvicorn, openai, pydantic"
    if subprocess.run([python, "-c", needs], capture_output=True).returncode:
        pytest.skip(f"{python} lacks what `transformers serve` needs (pip install 'transformers[serving]')")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    model = save_tiny_model(tmp_path / "model", "llama", chat_template=True, pad=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*("-m", "transformers.cli.transformers", "serve", model), "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path / "serve.log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen([python, *words], stdout=out, stderr=out, env=environment, cwd=tmp_path)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    yield f"http://127.0.0.1:{port}/v1", model
                    return
            time.sleep(0.2)
        pytest.skip(f"`transformers serve` did not start: {log.read_text()[-500:]}")
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("chat", [True, False])
def test_a_real_server_answers_and_a_model_that_knows_nothing_gives_no_verdict(
    real_server: tuple[str, str], tmp_path: Path, chat: bool
) -> None:
    url, model = real_server
    config = LLMJudgeConfig(url=url, model=model, chat=chat, max_tokens=8, cache=str(tmp_path / "cache"), parallel=2)
    asked = LLMJudge(config, seed=0, bars=False)
    asked.check()
    judged = asked.compare(PROMPTS, {"sft": SFT, "ppo": PPO}, "sft")
    assert judged.usage["requests"] == 6
    assert judged.usage["parse_failures"] == 6
    assert judged.usage["requests_without_usage"] == 0
    assert judged.usage["completion_tokens"] <= 6 * 8
    assert judged.usage["prompt_tokens"] > 6 * 100  # the words of the template, in the tiny model's tokens
    assert [math.isnan(win) for win in judged.verdicts["ppo"].wins] == [True, True, False, True]
    assert LLMJudge(config, seed=0, bars=False).compare(PROMPTS, {"sft": SFT, "ppo": PPO}, "sft").usage["cached"] == 6
