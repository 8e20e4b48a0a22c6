"""An engine that cannot run here is refused with a sentence that names the key, before anything loads."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from rlhf.chain import runner
from rlhf.cli import main
from rlhf.config import Config, RolloutConfig, RolloutEngineName, RunConfig, StageName, VLLMConfig
from rlhf.errors import UserError
from rlhf.ppo.engines.requirements import require_installed, require_server

VLLM = importlib.util.find_spec("vllm") is not None


@pytest.fixture
def serve() -> Iterator[Callable[[int, Any], str]]:
    """Starts a server that answers every GET with this status and JSON; its address."""
    servers: list[HTTPServer] = []

    def start(status: int, body: Any) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *args: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def at(url: str) -> RolloutConfig:
    return RolloutConfig(engine=RolloutEngineName.vllm_server, vllm=VLLMConfig(url=url))


@pytest.mark.skipif(VLLM, reason="vLLM is installed here")
@pytest.mark.parametrize("stage", [StageName.ppo, StageName.all])
def test_vllm_without_vllm_says_what_to_install(stage: StageName, tmp_path: Any) -> None:
    config = Config(
        stage=stage, run=RunConfig(root=str(tmp_path)), rollout=RolloutConfig(engine=RolloutEngineName.vllm)
    )
    for refuses in (runner.run, runner.check):
        with pytest.raises(UserError, match=r"rollout.engine=vllm needs vLLM, .* pip install 'rlhf\[vllm\]'"):
            refuses(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(VLLM, reason="vLLM is installed here")
def test_stages_without_rollouts_of_ppo_do_not_ask_for_vllm(tmp_path: Any) -> None:
    config = Config(run=RunConfig(root=str(tmp_path)), rollout=RolloutConfig(engine=RolloutEngineName.vllm))
    config.stage = StageName.sft
    runner.check(config)


@pytest.mark.skipif(VLLM, reason="vLLM is installed here")
def test_vllm_without_vllm_is_status_2_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["rlhf", "stage=ppo", "rollout=vllm"])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 2
    assert "rollout.engine=vllm needs vLLM" in capsys.readouterr().err


@pytest.mark.parametrize("engine", [RolloutEngineName.hf, RolloutEngineName.paged])
def test_engines_of_the_training_process_need_nothing(engine: RolloutEngineName) -> None:
    require_installed(RolloutConfig(engine=engine))
    require_server(RolloutConfig(engine=engine))


def test_a_url_where_nobody_answers_is_refused() -> None:
    with pytest.raises(UserError, match=r"No vLLM server answers at rollout.vllm.url=http://127.0.0.1:9 \(.*refused"):
        require_server(at("http://127.0.0.1:9"))


def test_a_server_that_takes_no_weights_is_refused(serve: Callable[[int, Any], str]) -> None:
    with pytest.raises(UserError, match=r"answers 404 to /server_info.*VLLM_SERVER_DEV_MODE"):
        require_server(at(serve(404, {})))


def test_something_else_than_vllm_is_refused(serve: Callable[[int, Any], str]) -> None:
    with pytest.raises(UserError, match=r"No vLLM server answers at rollout.vllm.url="):
        require_server(at(serve(200, {"hello": "world"})))


def test_a_server_whose_logprobs_leave_out_the_temperature_is_refused(serve: Callable[[int, Any], str]) -> None:
    url = serve(200, {"vllm_config": {"model_config": {"logprobs_mode": "raw_logprobs"}}})
    with pytest.raises(UserError, match=r"--logprobs-mode raw_logprobs"):
        require_server(at(url))
    require_server(at(serve(200, {"vllm_config": {"model_config": {"logprobs_mode": "processed_logprobs"}}})))


def test_a_url_without_its_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rollout.vllm.url is 'localhost:8000'; it starts with http://"):
        VLLMConfig(url="localhost:8000")


def test_a_temperature_that_vllm_would_raise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rollout.temperature is 2.5, which vLLM refuses; use 2.0 or less"):
        RolloutConfig(engine=RolloutEngineName.vllm, temperature=2.5)
    with pytest.raises(ValueError, match=r"rollout.temperature is 0.001, which vLLM would raise to 0.01"):
        RolloutConfig(engine=RolloutEngineName.vllm, temperature=0.001)
    RolloutConfig(engine=RolloutEngineName.paged, temperature=0.001)
