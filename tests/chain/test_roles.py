"""A folder is refused where its kind of model does not fit the key that names it, with the one that was meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlhf.chain.parents import named_parents
from rlhf.chain.roles import check_role, has_score_head
from rlhf.chain.stages import STAGES
from rlhf.config import Config, JudgeConfig, ModelConfig, PPOConfig, RewardConfig, SFTConfig, StageName
from rlhf.errors import UserError
from rlhf.models.load import load_reward_model
from rlhf.models.save import save_model
from rlhf.models.tokenizers import load_tokenizer
from tests.support.tiny import save_tiny_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with an SFT model and a reward model in it."""
    folder = tmp_path_factory.mktemp("run")
    policy = save_tiny_model(folder / "sft" / "model", "llama")
    scorer = load_reward_model(policy, ModelConfig(), fresh_head=True)
    save_model(scorer, load_tokenizer(policy), folder / "reward" / "model")
    for stage in ("sft", "reward"):
        (folder / stage / "manifest.json").write_text(json.dumps({"stage": stage, "status": "complete"}))
    return folder


@pytest.mark.parametrize(
    "key", ["ppo.reward_model", "ppo.reward_models/kind", "judge.reward_model", "sft.reward_model"]
)
def test_a_language_model_is_no_reward_model(run: Path, key: str) -> None:
    check_role(run / "reward" / "model", key)
    typed = key.replace("/", ".")
    with pytest.raises(UserError, match=rf"{typed} .*no head .*\(stage=sft made it\).*mean {typed}=.*reward/model"):
        check_role(run / "sft" / "model", key)


@pytest.mark.parametrize("key", ["ppo.policy", "sft.base", "compare.candidates/mine", "self_instruct.model"])
def test_a_reward_model_is_no_policy(run: Path, key: str) -> None:
    check_role(run / "sft" / "model", key)
    with pytest.raises(UserError, match=r"writes none \(stage=reward made it\); did you mean .*sft/model"):
        check_role(run / "reward" / "model", key)


def test_a_value_model_may_start_from_either(run: Path) -> None:
    for stage in ("sft", "reward"):
        check_role(run / stage / "model", "ppo.value_model")
        check_role(run / stage / "model", "reward.policy")


def test_every_key_that_names_a_model_is_checked(run: Path) -> None:
    policy, scorer = str(run / "sft" / "model"), str(run / "reward" / "model")
    wrong = {
        StageName.sft: Config(sft=SFTConfig(base=scorer)),
        StageName.ppo: Config(ppo=PPOConfig(policy=scorer)),
        StageName.compare: Config(judge=JudgeConfig(reward_model=policy)),
        StageName.report: Config(judge=JudgeConfig(reward_model=policy)),
    }
    for name, config in wrong.items():
        with pytest.raises(UserError, match="did you mean"):
            named_parents(config, STAGES[name].named)
    assert named_parents(Config(reward=RewardConfig(policy=policy)), STAGES[StageName.reward].named)


def test_without_a_config_that_says_it_the_weights_do(run: Path, tmp_path: Path) -> None:
    for stage, scores in (("sft", False), ("reward", True)):
        folder = tmp_path / stage
        shutil.copytree(run / stage / "model", folder)
        config = json.loads((folder / "config.json").read_text())
        del config["architectures"]
        (folder / "config.json").write_text(json.dumps(config))
        assert has_score_head(folder) is scores
    (tmp_path / "sft" / "model.safetensors").write_bytes(b"torn")
    assert has_score_head(tmp_path / "sft") is None
