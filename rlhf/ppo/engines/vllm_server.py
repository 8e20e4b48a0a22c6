"""A vLLM server in another process, on other devices or another machine; vLLM itself is not needed here.

New weights go to the server through a folder that both see: written here, read there. Not run on a GPU.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.models.load import torch_dtype
from rlhf.models.save import save_model
from rlhf.models.sharding import gathered
from rlhf.ppo.engines.vllm_sampling import request_seeds, sampling_fields
from rlhf.ppo.rollout import Rollout
from rlhf.runtime import distributed


class VLLMServerEngine:
    """rollout.vllm.url's server; `rollout.batch_size` requests are under way at a time.

    folder: the stage's own, where weights are handed over unless rollout.vllm.sync_folder names another place.
    """

    def __init__(self, config: Config, folder: Path, *, tokenizer: PreTrainedTokenizerBase) -> None:
        self._config = config.rollout
        self._url = config.rollout.vllm.url.rstrip("/")
        self._dtype = torch_dtype(config.model.dtype)
        self._tokenizer = tokenizer
        chosen = config.rollout.vllm.sync_folder
        self._weights = (Path(chosen) if chosen is not None else folder) / "weights_for_server"
        self._requests = ThreadPoolExecutor(config.rollout.batch_size)

    def sync(self, policy: Any) -> None:
        with gathered(policy):
            if distributed.is_main_process():  # the ranks share the server
                self._hand_over(policy)
        distributed.barrier()

    def _hand_over(self, policy: Any) -> None:
        save_model(policy, self._tokenizer, self._weights, dtype=self._dtype)
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(self._weights.absolute())}}
        self._post("collective_rpc", call, hint=f"it must be able to read {self._weights.absolute()}")
        # Keys and values of prompts seen before belong to the old weights.
        if not self._post("reset_prefix_cache", {})["success"]:
            raise RuntimeError("The vLLM server kept its prefix cache, which belongs to weights that are gone.")

    def generate(self, prompt_ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None, *, seed: int) -> Rollout:
        # One request a prompt: all prompts of one request would be drawn with the same random numbers.
        rows = range(len(prompt_ids)) if rows is None else rows
        seeds = request_seeds(seed, len(prompt_ids))
        asked = [prompt_ids[row] for row in rows]
        choices = list(self._requests.map(self._complete, asked, [seeds[row] for row in rows]))
        responses = [list(choice["token_ids"]) for choice in choices]
        logprobs = [list(choice["logprobs"]["token_logprobs"]) for choice in choices]
        assert [*map(len, responses)] == [*map(len, logprobs)], "a log-prob a token"
        return Rollout(responses, [ids[-1] == self._tokenizer.eos_token_id for ids in responses], logprobs)

    def close(self) -> None:
        self._requests.shutdown(cancel_futures=True)
        shutil.rmtree(self._weights, ignore_errors=True)

    def _complete(self, prompt: Sequence[int], seed: int) -> dict[str, Any]:
        fields = sampling_fields(self._config, eos_token_id=self._tokenizer.eos_token_id, seed=seed)
        answer = self._post("v1/completions", {"prompt": list(prompt), "return_token_ids": True, **fields})
        return answer["choices"][0]

    def _post(self, path: str, body: dict[str, Any], *, hint: str = "its own log says why") -> Any:
        request = urllib.request.Request(
            f"{self._url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        server = f"The vLLM server at rollout.vllm.url={self._url}"
        try:
            with urllib.request.urlopen(request, timeout=self._config.vllm.timeout_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()[:300]
            raise UserError(f"{server} answers {error.code} to /{path}; {hint}. It said: {said}") from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(
                f"{server} does not answer ({reason}); start it again, and the same command goes on with it."
            ) from error
