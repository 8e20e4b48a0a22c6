"""What is sent to a vLLM server and what is made of its answers, with a stand-in that remembers both."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rlhf.config import Config, ModelConfig, RolloutConfig, RolloutEngineName, VLLMConfig
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.engines.vllm_server import VLLMServerEngine
from tests.support.tiny import save_tiny_model


class FakeServer:
    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        self.reset = True
        self.delay_s = 0.0
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.weights: list[dict[str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake.lock:
                    fake.requests.append((self.path, body))
                    fake.under_way += 1
                    fake.most_under_way = max(fake.most_under_way, fake.under_way)
                time.sleep(fake.delay_s)
                with fake.lock:
                    fake.under_way -= 1
                self.send_response(fake.status)
                self.end_headers()
                self.wfile.write(json.dumps(fake.answer(self.path, body)).encode())

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/collective_rpc":
            self.weights.append(load_file(Path(body["kwargs"]["weights_path"]) / "model.safetensors"))
            return {"results": [None]}
        if path == "/reset_prefix_cache":
            return {"success": self.reset}
        ids = [body["prompt"][0], 0] if body["prompt"][0] % 2 else [body["prompt"][0]] * body["max_tokens"]
        return {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": [-0.5 - i for i in range(len(ids))]}}]}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    made = FakeServer()
    yield made
    made.http.shutdown()
    made.http.server_close()


def engine_for(server: FakeServer, folder: Path, **vllm: Any) -> tuple[VLLMServerEngine, Any]:
    config = Config(
        rollout=RolloutConfig(
            engine=RolloutEngineName.vllm_server,
            max_new_tokens=3,
            temperature=0.7,
            batch_size=2,
            vllm=VLLMConfig(**{"url": server.url + "/", "timeout_s": 20, **vllm}),
        )
    )
    path = save_tiny_model(folder / "policy", "llama", pad=True)
    tokenizer = load_tokenizer(path)
    return VLLMServerEngine(config, folder / "ppo", tokenizer=tokenizer), load_causal_lm(path, ModelConfig())


def test_answers_become_responses_in_the_order_of_the_prompts(server: FakeServer, tmp_path: Path) -> None:
    engine, _ = engine_for(server, tmp_path)
    drawn = engine.generate([[5, 6], [8], [7], [9, 9, 9], [4]], seed=0)
    assert drawn.response_ids == [[5, 0], [8, 8, 8], [7, 0], [9, 0], [4, 4, 4]]
    assert drawn.ended == [True, False, True, True, False]
    assert drawn.logprobs is not None
    assert drawn.logprobs[:2] == [[-0.5, -1.5], [-0.5, -1.5, -2.5]]


def test_every_prompt_is_asked_for_exactly_our_distribution_with_a_seed_of_its_own(
    server: FakeServer, tmp_path: Path
) -> None:
    engine, _ = engine_for(server, tmp_path)
    engine.generate([[5, 6]] * 4, seed=0)
    bodies = [body for path, body in server.requests if path == "/v1/completions"]
    asked = {
        **{"temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "max_tokens": 3},
        **{"presence_penalty": 0.0, "frequency_penalty": 0.0, "ignore_eos": True, "stop_token_ids": [0], "n": 1},
    }
    assert all(body.items() >= {"prompt": [5, 6], "return_token_ids": True, "logprobs": 0}.items() for body in bodies)
    assert all({key: body[key] for key in asked} == asked for body in bodies)
    seeds = {body["seed"] for body in bodies}
    assert len(seeds) == 4
    server.requests.clear()
    engine.generate([[5, 6]] * 4, seed=0)
    assert {body["seed"] for _, body in server.requests} == seeds


@pytest.mark.parametrize("elsewhere", [False, True])
def test_sync_hands_over_the_weights_and_empties_the_prefix_cache(
    elsewhere: bool, server: FakeServer, tmp_path: Path
) -> None:
    engine, policy = engine_for(server, tmp_path, sync_folder=str(tmp_path / "shared") if elsewhere else None)
    for scale in (1.0, 2.0):
        policy.lm_head.weight.data.mul_(scale)
        engine.sync(policy)
        assert server.weights[-1]["lm_head.weight"].equal(policy.lm_head.weight)
    folder = tmp_path / ("shared" if elsewhere else "ppo") / "weights_for_server"
    call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    assert server.requests == [("/collective_rpc", call), ("/reset_prefix_cache", {})] * 2
    assert folder.is_dir()
    engine.close()
    assert not folder.exists()


def test_a_prefix_cache_that_stays_stops_the_run(server: FakeServer, tmp_path: Path) -> None:
    engine, policy = engine_for(server, tmp_path)
    server.reset = False
    with pytest.raises(RuntimeError, match="kept its prefix cache"):
        engine.sync(policy)


def test_a_refusal_of_the_server_is_a_sentence_with_its_words(server: FakeServer, tmp_path: Path) -> None:
    engine, policy = engine_for(server, tmp_path)
    server.status = 500
    with pytest.raises(UserError, match=r"answers 500 to /collective_rpc; it must be able to read /"):
        engine.sync(policy)
    with pytest.raises(UserError, match=r"answers 500 to /v1/completions; its own log says why. It said: {\"choices\""):
        engine.generate([[5]], seed=0)


def test_a_server_that_went_away_is_a_sentence(server: FakeServer, tmp_path: Path) -> None:
    engine, _ = engine_for(server, tmp_path)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match=r"does not answer \(.*refused.*\); start it again"):
        engine.generate([[5]], seed=0)


def test_an_answer_that_takes_longer_than_the_timeout_is_a_sentence(server: FakeServer, tmp_path: Path) -> None:
    engine, _ = engine_for(server, tmp_path, timeout_s=0.2)
    server.delay_s = 2
    with pytest.raises(UserError, match=r"does not answer \(timed out\)"):
        engine.generate([[5]], seed=0)


def test_as_many_requests_are_under_way_as_rollout_batch_size(server: FakeServer, tmp_path: Path) -> None:
    engine, _ = engine_for(server, tmp_path)
    server.delay_s = 0.3
    engine.generate([[5, 6]] * 5, seed=0)
    assert server.most_under_way == 2
