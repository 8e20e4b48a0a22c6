"""What a rollout engine needs, refused in a sentence before torch or a model loads."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from typing import Any

from rlhf.config import RolloutConfig, RolloutEngineName
from rlhf.errors import UserError

_PROBE_TIMEOUT_S = 10.0
_START = "start one with launch/vllm_server.sh MODEL_FOLDER"


def require_installed(config: RolloutConfig) -> None:
    """Raises UserError where rollout.engine=vllm and there is no vLLM to import. Imports nothing itself."""
    if config.engine == RolloutEngineName.vllm and importlib.util.find_spec("vllm") is None:
        raise UserError(
            "rollout.engine=vllm needs vLLM, which is not installed; run pip install 'rlhf[vllm]' on a machine with a "
            "GPU (without one: make test-vllm shows how), or use rollout.engine=hf."
        )


def require_server(config: RolloutConfig) -> None:
    """Raises UserError where rollout.engine=vllm_server and no server fit for PPO answers at rollout.vllm.url."""
    if config.engine != RolloutEngineName.vllm_server:
        return
    url = config.vllm.url.rstrip("/")
    server = _server_info(url)
    mode = server.get("model_config", {}).get("logprobs_mode")
    if mode != "processed_logprobs":
        raise UserError(
            f"The vLLM server at rollout.vllm.url={url} has --logprobs-mode {mode}, whose log-probs leave out the "
            f"temperature; {_START}, which sets processed_logprobs."
        )


def _server_info(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{url}/server_info?config_format=json", timeout=_PROBE_TIMEOUT_S) as answer:
            return json.load(answer)["vllm_config"]
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(
            f"The server at rollout.vllm.url={url} answers {error.code} to /server_info, so it is no vLLM server that "
            f"takes new weights; {_START}, which sets VLLM_SERVER_DEV_MODE=1."
        ) from None
    except (OSError, ValueError, KeyError) as error:  # nobody there, or somebody else
        reason = getattr(error, "reason", None) or error
        raise UserError(f"No vLLM server answers at rollout.vllm.url={url} ({reason}); {_START}.") from None
