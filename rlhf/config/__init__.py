"""The configuration: dataclasses are the schema, files under conf/ pick values.

`Config` is the root. Hydra composes it, `OmegaConf.to_object` turns it into these plain objects once, and from there on
nothing in the project sees a DictConfig. Every field says its meaning, unit and "off" value; a combination that cannot
work raises ValueError here, before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_positive
from rlhf.config.choices import (
    CHAIN,
    Advantage,
    DataSourceName,
    Device,
    DType,
    Float32Matmul,
    JudgeName,
    Keep,
    KLEstimator,
    KLPlacement,
    LongPrompts,
    LossMean,
    LossOn,
    OnBadRow,
    Quantization,
    RolloutEngineName,
    Sampling,
    SelectBy,
    StageName,
    SubsetRule,
    Template,
    TextMetric,
    ValueHead,
)
from rlhf.config.compare import CompareConfig
from rlhf.config.data import DataConfig, MixtureConfig, QualityConfig, SandboxConfig
from rlhf.config.judge import JudgeConfig, LLMJudgeConfig
from rlhf.config.label import LabelConfig
from rlhf.config.model import ArchitectureConfig, FreezeConfig, LoraConfig, ModelConfig
from rlhf.config.ppo import KLConfig, LimitsConfig, PPOConfig, PtxConfig, RolloutConfig, VLLMConfig
from rlhf.config.report import ReportConfig
from rlhf.config.self_instruct import SelfInstructConfig, SelfInstructServerConfig
from rlhf.config.stages import OptimConfig, PretrainConfig, RewardConfig, SFTConfig

__all__ = [
    "CHAIN",
    "Advantage",
    "ArchitectureConfig",
    "CompareConfig",
    "Config",
    "DType",
    "DataConfig",
    "DataSourceName",
    "Device",
    "Float32Matmul",
    "FreezeConfig",
    "JudgeConfig",
    "JudgeName",
    "KLConfig",
    "KLEstimator",
    "KLPlacement",
    "Keep",
    "LLMJudgeConfig",
    "LabelConfig",
    "LaunchConfig",
    "LimitsConfig",
    "LongPrompts",
    "LoraConfig",
    "LossMean",
    "LossOn",
    "MixtureConfig",
    "ModelConfig",
    "OnBadRow",
    "OptimConfig",
    "PPOConfig",
    "PlanConfig",
    "PretrainConfig",
    "PtxConfig",
    "QualityConfig",
    "Quantization",
    "ReportConfig",
    "RewardConfig",
    "RolloutConfig",
    "RolloutEngineName",
    "RunConfig",
    "SFTConfig",
    "Sampling",
    "SandboxConfig",
    "SelectBy",
    "SelfInstructConfig",
    "SelfInstructServerConfig",
    "StageName",
    "SubsetRule",
    "Template",
    "TextMetric",
    "TrackerConfig",
    "VLLMConfig",
    "ValueHead",
    "ZeroConfig",
]


@dataclass
class RunConfig:
    name: str = "demo"  # the run's folder is <root>/<name>
    root: str = "runs"  # the folder that runs lie in
    parents: str | None = None  # another run's folder, searched for finished parents after this run's own; None: none
    again: list[StageName] = field(default_factory=list)  # finished stages to make again, from their newest checkpoints
    keep_checkpoints: int = 2  # of a stage, the newest; one that is damaged is passed over, hence more than one
    save_minutes: float = 10.0  # sft, reward, pretrain: between checkpoints at most; an interruption loses no more

    def __post_init__(self) -> None:
        require_positive("run", keep_checkpoints=self.keep_checkpoints, save_minutes=self.save_minutes)
        require(
            self.name not in ("", ".", "..") and "/" not in self.name,
            f"run.name is {self.name!r}; use one folder name, and run.root for where it lies.",
        )


@dataclass
class LaunchConfig:
    device: Device = Device.auto  # where models are
    threads: int | None = None  # CPU threads of torch; None: one a core
    float32_matmul: Float32Matmul = Float32Matmul.auto  # how exact products of float32 matrices are
    gpus_per_node: int = 1  # processes to start here, one a GPU; on a CPU processes alike; ignored under torchrun
    oversubscribe: bool = False  # more processes than there are processor cores, where there is no GPU

    def __post_init__(self) -> None:
        require_positive("launch", gpus_per_node=self.gpus_per_node)


@dataclass
class ZeroConfig:
    stage: int = 0  # ZeRO stage: 0 trains without DeepSpeed; 1, 2, 3 shard optimizer state, gradients, parameters
    offload: bool = False  # optimizer state (and at 3 parameters) in CPU memory

    def __post_init__(self) -> None:
        require(self.stage in (0, 1, 2, 3), f"zero.stage is {self.stage}; use 0 (no DeepSpeed), 1, 2 or 3.")
        require(not self.offload or self.stage > 0, "zero.offload needs DeepSpeed; set zero=2 or zero=3.")


@dataclass
class PlanConfig:
    gpu_memory_gib: float = 80.0  # of each GPU, for stage=plan to say what fits

    def __post_init__(self) -> None:
        require_positive("plan", gpu_memory_gib=self.gpu_memory_gib)


@dataclass
class TrackerConfig:
    """metrics.jsonl is always written; these add to it."""

    wandb: bool = False  # log to Weights & Biases too
    wandb_project: str = "rlhf"  # its name there
    wandb_mode: str = "offline"  # offline reaches no network; online uploads
    tensorboard: bool = False  # write event files beside metrics.jsonl too
    progress: bool = True  # bars on the terminal

    def __post_init__(self) -> None:
        require(
            self.wandb_mode in ("offline", "online"),
            f"tracker.wandb_mode is {self.wandb_mode!r}; use offline or online.",
        )


@dataclass
class Config:
    stage: StageName = StageName.all  # what to run
    seed: int = 0  # of everything that is drawn; the same seed on one machine gives the same bits
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    self_instruct: SelfInstructConfig = field(default_factory=SelfInstructConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)

    def __post_init__(self) -> None:
        require(
            self.stage != StageName.pretrain or self.model.freeze == FreezeConfig(),
            "model.freeze keeps weights as they were, and stage=pretrain starts from none; leave it out.",
        )
        require(
            self.data.source == DataSourceName.sandbox or JudgeName.gold not in self.judge.names,
            f"judge.names holds gold, which only data=sandbox has; with data={self.data.source.value} use "
            "judge=reward_model.",
        )
        sharded = self.zero.stage > 0 and self.stage in (StageName.all, StageName.ppo)
        require(
            not (sharded and (self.ppo.share_base or self.ppo.value_head == ValueHead.shared)),
            f"zero.stage={self.zero.stage} shards models that share no weights; with ppo.share_base=true or "
            "ppo.value_head=shared use zero=none.",
        )
        require(
            not (sharded and self.model.quantization != Quantization.none),
            f"zero.stage={self.zero.stage} does not shard quantized weights in PPO; use zero=none or "
            "model.quantization=none.",
        )
        require(
            not self.ppo.share_base or self.model.lora.r > 0,
            "ppo.share_base keeps an adapter for each role on one base; set model.lora.r=16, or ppo.share_base=false.",
        )
