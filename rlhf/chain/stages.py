"""Every stage, declared. To add one: an outline in stages/, a declaration here, a node in the config.

The order counts: what a sweep changes of one stage reaches all that stand below it.
"""

from __future__ import annotations

from rlhf.chain import needs, parents, reads
from rlhf.chain.stage import DATA_READ, Keys, Read, Stage
from rlhf.config import Config, DataConfig, StageName

# Left out below: paths, which stand for what lies there and are fingerprinted by it, and keys of speed and memory.
_DATA = Keys(
    "data", but=("data.path", "data.prompts_path", "data.phrasings", "data.streaming", "data.workers", "data.cache")
)
_MODEL = Keys(
    "model", but=("model.path", "model.trust_remote_code", "model.gradient_checkpointing", "model.architecture")
)
_DTYPE = Keys("model.dtype")
_SEED = Keys("seed")
_ROLLOUT = Keys("rollout", but=("rollout.cuda_graphs", "rollout.gather", "rollout.vllm"))
# Sampling outside of PPO, where rollout.engine has no say.
_SAMPLING = (Keys("rollout.temperature"), Keys("rollout.max_new_tokens"), Keys("rollout.batch_size"))
_COMPARE = Keys("compare", but=("compare.candidates", "compare.benchmark", "compare.lm_eval_path", "compare.outputs"))
_JUDGE = Keys(
    "judge",
    but=(
        "judge.reward_model",
        *("judge.llm.url", "judge.llm.prompt", "judge.llm.cache", "judge.llm.timeout_s", "judge.llm.retries"),
        *("judge.llm.parallel", "judge.llm.requests_per_minute", "judge.llm.input_price", "judge.llm.output_price"),
    ),
)


def _ppo_seed(config: Config) -> int:
    return config.seed if config.ppo.seed is None else config.ppo.seed


def _sandbox_alone(config: Config) -> DataConfig:
    """Its data are its seed tasks; a file named by data.path is not read."""
    return DataConfig(sandbox=config.data.sandbox)


PRETRAIN = Stage(
    StageName.pretrain,
    decided_by=(Keys("pretrain", but=("pretrain.save_every",)), Keys("model.architecture"), _DATA, _SEED),
    parents=parents.none,
    headline=("eval/loss",),
)
SFT = Stage(
    StageName.sft,
    decided_by=(
        Keys("sft", but=("sft.base", "sft.reward_model", "sft.micro_batch_size_per_device")),
        *(_MODEL, _DATA, _SEED),
    ),
    parents=parents.of_sft,
    named=("sft.base", "sft.reward_model"),
    needs=needs.of_training,
    headline=("train/loss", "eval/loss"),
    makes=("sft model", "model"),
    tokens_of="base",
)
REWARD = Stage(
    StageName.reward,
    decided_by=(
        Keys("reward", but=("reward.policy", "reward.micro_batch_size_per_device")),
        *(*_SAMPLING, _DATA, _MODEL, _SEED),
    ),
    parents=parents.of_reward,
    named=("reward.policy",),
    needs=needs.of_training,
    headline=("eval/loss", "eval/accuracy", "eval/accuracy_gold"),
    makes=("reward model", "model"),
    tokens_of="policy",
    prompted_as=lambda role: "reward.policy" if role == "policy" else None,
)
PPO = Stage(
    StageName.ppo,
    decided_by=(
        Keys(
            "ppo",
            but=(
                *("ppo.policy", "ppo.reward_model", "ppo.reward_models", "ppo.value_model"),
                *("ppo.micro_batch_tokens", "ppo.limits", "ppo.save_every"),
            ),
        ),
        *(_ROLLOUT, _DATA, _MODEL, _SEED),
    ),
    parents=parents.of_ppo,
    named=("ppo.policy", "ppo.reward_model", "ppo.reward_models", "ppo.value_model"),
    reads={"data": DATA_READ, "reward_fn": Read(reads.reward_fn, "other code behind ppo.reward_fn")},
    needs=needs.of_ppo,
    seed=_ppo_seed,
    headline=("eval/score", "eval/kl", "eval/gold"),
    makes=("ppo model", "model"),
    tokens_of="policy",
    prompted_as=lambda role: "ppo.policy" if role == "policy" else None,
)
COMPARE = Stage(
    StageName.compare,
    decided_by=(_COMPARE, _JUDGE, *_SAMPLING, _DATA, _DTYPE, _SEED),
    parents=parents.of_compare,
    named=("compare.candidates", "judge.reward_model"),
    reads={
        "data": Read(reads.compared, "other data"),
        "judge_prompt": Read(reads.judge_prompt, "other words in judge.llm.prompt"),
    },
    needs=needs.of_compare,
    makes=("report", "report.html"),
    nodes=("judge",),
    derived=True,
    prompted_as=lambda role: (
        "judge.reward_model" if role == "reward_model" else role.replace("candidates/", "compare.candidates.")
    ),
)
REPORT = Stage(
    StageName.report,
    decided_by=(Keys("report", but=("report.runs",)), _COMPARE, _JUDGE, *_SAMPLING, _DATA, _DTYPE, _SEED),
    parents=parents.of_report,
    named=("judge.reward_model",),
    makes=("report", "report.html"),
    derived=True,
    gathers=True,
    prompted_as=lambda role: "report:",
)
SELF_INSTRUCT = Stage(
    StageName.self_instruct,
    decided_by=(
        Keys(
            "self_instruct",
            but=(
                *("self_instruct.model", "self_instruct.seeds", "self_instruct.patience", "self_instruct.server.url"),
                *("self_instruct.server.parallel", "self_instruct.server.timeout_s", "self_instruct.server.retries"),
            ),
        ),
        *(_DTYPE, _SEED),
    ),
    parents=parents.of_self_instruct,
    named=("self_instruct.model",),
    reads={"data": Read(reads.seed_tasks, "other data")},
    data=_sandbox_alone,
    headline=("self_instruct/instructions", "self_instruct/instances"),
    apart=True,
    work="rounds.jsonl",
)

STAGES = {stage.name: stage for stage in (PRETRAIN, SFT, REWARD, PPO, COMPARE, REPORT, SELF_INSTRUCT)}
# What a manifest says of things that were read; null where a stage reads no such thing.
READ = tuple(dict.fromkeys(name for stage in STAGES.values() for name in stage.reads))
# Outlines that have no run: `run(config)` shows something, and there is nothing to skip or to resume.
WITHOUT_A_RUN = (StageName.plan, StageName.data, StageName.label)
# Settings that say where and how a stage runs, or what is looked at afterwards.
_REACHING_NONE = ("run", "tracker", "launch", "stage", "label", "report")


def reaches(key: str, name: StageName) -> bool:
    """Whether a swept setting changes what a stage is given.

    A stage's own keys reach it and all later stages, judge.* the comparison alone, run.*, tracker.*, launch.*, label.*
    and report.* nothing; any other key (seed, model, data, rollout, ...) reaches every stage of the chain.
    """
    stage, node = STAGES[name], key.partition(".")[0]
    if stage.apart:
        return node in {keys.node.partition(".")[0] for keys in stage.decided_by}
    if node in _REACHING_NONE:
        return False
    order = list(STAGES)
    owner = next((s.name for s in STAGES.values() if node in (s.name.value, *s.nodes)), None)
    return owner is None or order.index(owner) <= order.index(name)
