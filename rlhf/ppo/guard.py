"""Ends a PPO run that has gone wrong, with advice, before it burns hours; and leaves what is needed to look at it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rlhf.config import LimitsConfig
from rlhf.errors import UserError
from rlhf.ppo.experience import Episodes, Experience
from rlhf.runtime.distributed import is_main_process
from rlhf.runtime.folder import NOT_FINITE, StageFolder
from rlhf.training.context import StageContext
from rlhf.training.engine import NonFiniteLossError


def check_limits(step: int, metrics: Mapping[str, float], limits: LimitsConfig, folder: StageFolder) -> None:
    """Raises UserError where a KL or a ratio is beyond what any healthy run has; the checkpoints stay as they are."""
    for name, key, limit in (("objective/kl", "kl", limits.kl), ("policy/ratio_max", "ratio", limits.ratio)):
        value = metrics.get(name, 0.0)
        if limit is not None and not value <= limit:
            raise UserError(
                f"PPO stopped in iteration {step}: {name} is {value:.4g}, over ppo.limits.{key}={limit:g}, so the "
                f"policy has run away. {_last(folder)} In a run of another name lower ppo.optim.lr or raise "
                f"ppo.kl.coef; to go on all the same set ppo.limits.{key}=null."
            )


@contextmanager
def guarded(
    step: int, measured: Mapping[str, float], episodes: Episodes, experience: Experience, context: StageContext
) -> Iterator[dict[str, float]]:
    """Round the update of iteration `step`: gives a dictionary for its metrics, and looks at them when it has ended.

    Raises UserError where `measured` or they are beyond ppo.limits, or a loss is not finite.
    """
    losses: dict[str, float] = {}
    check_limits(step, measured, context.config.ppo.limits, context.folder)
    try:
        yield losses
    except NonFiniteLossError as error:
        raise not_finite(step, error, episodes, experience, context.folder) from error
    check_limits(step, losses, context.config.ppo.limits, context.folder)


def not_finite(
    step: int, error: NonFiniteLossError, episodes: Episodes, experience: Experience, folder: StageFolder
) -> UserError:
    """What to raise in place of `error`, the batch being kept in not_finite/step-`step`/. Every rank asks."""
    kept = folder.path / NOT_FINITE / f"step-{step}"
    if is_main_process():
        _keep(kept, episodes, experience)
    return UserError(f"PPO stopped in iteration {step}: {error} The batch is in {kept}. {_last(folder)}")


def _keep(folder: Path, episodes: Episodes, experience: Experience) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor | None] = {
        "input_ids": experience.batch.input_ids,
        "response_ids": experience.batch.response_ids,
        "response_mask": experience.batch.response_mask,
        **{
            name: getattr(experience, name)
            for name in ("scores", "old_logprobs", "ref_logprobs", "values", "rewards", "advantages", "returns")
        },
    }
    save_file(
        {name: t.cpu().contiguous() for name, t in tensors.items() if t is not None}, folder / "batch.safetensors"
    )
    with (folder / "episodes.jsonl").open("w", encoding="utf-8") as file:
        for prompt, response, score in zip(episodes.prompts, episodes.texts, experience.scores.tolist(), strict=True):
            line = {"prompt_id": prompt.prompt.id, "response": response, "score": score}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _last(folder: StageFolder) -> str:
    latest = folder.latest_checkpoint()
    return f"The last checkpoint is {latest[1]}." if latest is not None else "There is no checkpoint yet."
