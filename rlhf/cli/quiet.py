"""Libraries that talk or reach out unasked are told not to."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

from rlhf.config import Config, DataSourceName


def quiet_libraries(config: Config) -> None:
    """Environment and filters for libraries that talk or reach out unasked; a value the user set stays."""
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DS_LOG_LEVEL": "ERROR",
        "WANDB_SILENT": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(name, value)
    if not names_hub(config):
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ.setdefault(name, "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # says at import what it could not download
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", module=r"(transformers|trl|deepspeed|torch|hydra|accelerate|peft)(\..*)?")


def names_hub(config: Config) -> bool:
    """True if some path of the config is neither builtin nor on this disk, so that it can only be a hub id."""
    paths = [
        config.model.path,
        config.data.path,
        config.data.prompts_path,
        config.sft.base,
        config.sft.reward_model,
        config.reward.policy,
        config.ppo.policy,
        config.ppo.reward_model,
        config.ppo.value_model,
        config.judge.reward_model,
        config.self_instruct.model,
        *config.ppo.reward_models.values(),
        *config.compare.candidates.values(),
    ]
    if config.data.source == DataSourceName.mixture and config.data.path is not None:
        from rlhf.data.mixture_file import load_parts

        paths += [
            path for part in load_parts(config.data.path) for path in (part.config.path, part.config.prompts_path)
        ]
    if config.compare.lm_eval:
        from rlhf.evaluation.tasks import lm_eval

        if lm_eval.reaches_hub(config.compare):
            return True
    return any(
        path is not None and not path.startswith("builtin:") and not Path(path).expanduser().exists() for path in paths
    )
