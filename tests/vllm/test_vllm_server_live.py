"""A real vLLM server, started as the README says: it takes new weights, and its log-probs are then the trainer's.

Skipped where vLLM is not installed; `make test-vllm` makes an environment that has it and runs these.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.config import Config, DType, ModelConfig, RolloutConfig, RolloutEngineName, VLLMConfig
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.engines.requirements import require_server
from rlhf.ppo.engines.vllm_server import VLLMServerEngine
from tests.vllm.policies import BOUND, PROMPTS, largest_difference, save_sharp_model, update

pytest.importorskip("vllm", reason="vLLM is not installed; `make test-vllm` makes an environment that has it")

ROOT = Path(__file__).resolve().parents[2]
START_S = 600


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Its address, and the folder of the model it was started from."""
    folder = tmp_path_factory.mktemp("server")
    path = save_sharp_model(folder / "policy", "llama")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--port", str(port), "--dtype", "float32", "--max-model-len", "64", "--enforce-eager"]
    words += ["--kv-cache-memory-bytes", str(10**8), path]
    environment = {**os.environ, "VLLM": str(Path(sys.executable).parent / "vllm")}
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [ROOT / "launch" / "vllm_server.sh", *words], env=environment, stdout=log, stderr=log, cwd=folder
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await_health(url, process, folder / "log.txt")
        yield url, path
    finally:
        process.terminate()
        process.wait(timeout=60)


def await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(f"The server did not start:\n{log.read_text()[-3000:]}")


def test_after_an_update_its_logprobs_are_the_trainers_and_before_it_they_are_not(
    server: tuple[str, str], tmp_path: Path
) -> None:
    url, path = server
    config = Config(
        rollout=RolloutConfig(
            engine=RolloutEngineName.vllm_server,
            temperature=0.7,
            max_new_tokens=12,
            batch_size=4,
            vllm=VLLMConfig(url=url),
        )
    )
    require_server(config.rollout)
    policy = load_causal_lm(path, ModelConfig())
    engine = VLLMServerEngine(config, tmp_path, tokenizer=load_tokenizer(path))
    engine.sync(policy)
    assert largest_difference(policy, engine.generate(PROMPTS, seed=0), 0.7) < BOUND[DType.float32]
    for seed in (1, 2):
        update(policy, seed=seed)
        stale = engine.generate(PROMPTS, seed=seed)
        engine.sync(policy)
        fresh = engine.generate(PROMPTS, seed=seed)
        assert largest_difference(policy, stale, 0.7) > 4 * BOUND[DType.bfloat16]
        assert largest_difference(policy, fresh, 0.7) < BOUND[DType.float32]
    again = engine.generate(PROMPTS, seed=2)
    assert again.response_ids == fresh.response_ids
    engine.close()
