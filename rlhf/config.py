"""The configuration: dataclasses are the schema, files under conf/ pick values.

`Config` is the root. Hydra composes it, `OmegaConf.to_object` turns it into these plain objects once, and from there on
nothing in the project sees a DictConfig. Every field says its meaning, unit and "off" value; a combination that cannot
work raises ValueError here, before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class StageName(Enum):
    all = "all"  # sft, reward, ppo, compare, in this order
    pretrain = "pretrain"
    sft = "sft"
    reward = "reward"
    ppo = "ppo"
    compare = "compare"


class DType(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantization(Enum):
    none = "none"
    int8 = "int8"  # LLM.int8() (arXiv:2208.07339)
    nf4 = "nf4"  # QLoRA's four bits, their scales quantized too (arXiv:2305.14314)


class Device(Enum):
    auto = "auto"  # CUDA when there is one, else CPU
    cpu = "cpu"
    cuda = "cuda"


class DataSourceName(Enum):
    sandbox = "sandbox"  # the built-in instruction world
    hh_rlhf = "hh_rlhf"  # Anthropic's chosen/rejected transcripts
    self_instruct = "self_instruct"  # seed_tasks.jsonl
    alpaca = "alpaca"  # instruction / input / output
    jsonl = "jsonl"  # our own one-record-a-line format: prompt + response, completions + ranks, or text


class Template(Enum):
    auto = "auto"  # the tokenizer's own chat template; `plain` when it has none
    plain = "plain"  # "Human: ...\n\nAssistant:"
    chatml = "chatml"


class OnBadRow(Enum):
    refuse = "refuse"
    skip = "skip"  # counted, and listed in bad_rows.jsonl in the stage's folder


class SelectBy(Enum):
    validation_loss = "validation_loss"
    reward_model = "reward_model"  # mean score of sampled responses to held-out prompts, as InstructGPT chose
    last = "last"


class JudgeName(Enum):
    gold = "gold"  # the sandbox's own rubric
    reward_model = "reward_model"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_positive(node: str, **values: float) -> None:
    for key, value in values.items():
        _require(value > 0, f"{node}.{key} is {value}; it must be above 0.")


def _require_fraction(node: str, *, open_above: bool = False, **values: float) -> None:
    for key, value in values.items():
        ok = 0 <= value < 1 if open_above else 0 <= value <= 1
        bounds = "0 or more and below 1" if open_above else "between 0 and 1"
        _require(ok, f"{node}.{key} is {value}; it must be {bounds}.")


@dataclass
class RunConfig:
    name: str = "demo"  # the run's folder is <root>/<name>
    root: str = "runs"
    parents: str | None = None  # another run's folder, searched for finished parents after this run's own; None: none

    def __post_init__(self) -> None:
        _require(
            self.name not in ("", ".", "..") and "/" not in self.name,
            f"run.name is {self.name!r}; use one folder name, and run.root for where it lies.",
        )


@dataclass
class LaunchConfig:
    device: Device = Device.auto
    threads: int | None = None  # CPU threads of torch; None: one a core


@dataclass
class LoraConfig:
    r: int = 0  # rank of the adapters; 0 trains every weight
    alpha: float = 16.0  # adapters are scaled by alpha / r
    dropout: float = 0.0
    target_modules: list[str] = field(default_factory=list)  # names of linear layers; empty: every linear but the head

    def __post_init__(self) -> None:
        _require(self.r >= 0, f"model.lora.r is {self.r}; use 0 (off) or a positive rank.")
        _require_fraction("model.lora", open_above=True, dropout=self.dropout)


@dataclass
class ArchitectureConfig:
    """Shape of a Llama to train from nothing; read by stage=pretrain alone."""

    hidden_size: int = 128
    intermediate_size: int = 352
    layers: int = 4
    heads: int = 4
    context: int = 1024  # tokens
    vocab_size: int = 1024  # the tokenizer is trained to this size on the same corpus

    def __post_init__(self) -> None:
        _require_positive("model.architecture", **vars(self))
        _require(
            self.hidden_size % self.heads == 0,
            f"model.architecture.hidden_size={self.hidden_size} does not split into "
            f"{self.heads} heads; change model.architecture.heads.",
        )


@dataclass
class ModelConfig:
    path: str = "builtin:sandbox-m"  # hub id, local folder, or builtin:sandbox-{s,m,l}
    dtype: DType = DType.float32  # to compute and save in; trained weights, log-probs and losses stay float32
    attn_implementation: str | None = None  # Transformers' name (eager, sdpa, flash_attention_2); None: its choice
    trust_remote_code: bool = False  # runs Python that ships with the model; off unless you know the author
    gradient_checkpointing: bool = False
    lora: LoraConfig = field(default_factory=LoraConfig)
    quantization: Quantization = Quantization.none  # of the frozen weights under adapters, by bitsandbytes
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)

    def __post_init__(self) -> None:
        _require(
            self.quantization == Quantization.none or self.lora.r > 0,
            f"model.quantization={self.quantization.value} leaves nothing to train but adapters; set model.lora.r=16, "
            "or model.quantization=none.",
        )


@dataclass
class SandboxConfig:
    """How much the built-in world writes. Everything is a function of these numbers and `seed`."""

    world_seed: int = 0  # facts, templates, splits; kept apart from `seed` so that seeds share one world
    demonstrations: int = 8000
    ranking_prompts: int = 3000
    prompts: int = 8000  # for PPO
    evaluation_prompts: int = 400
    pretraining_documents: int = 100000
    min_completions: int = 4  # K is drawn evenly from [min, max] for each ranking
    max_completions: int = 9
    labeler_agreement: float = 0.73  # how often two labelers order a pair alike (InstructGPT: 73 %)

    def __post_init__(self) -> None:
        counts = {k: v for k, v in vars(self).items() if k not in ("world_seed", "labeler_agreement")}
        _require_positive("data.sandbox", **counts)
        _require(
            2 <= self.min_completions <= self.max_completions,
            f"data.sandbox.min_completions={self.min_completions} and max_completions={self.max_completions}; "
            "a ranking needs 2 or more, and max at least min.",
        )
        _require(
            0.5 < self.labeler_agreement <= 1,
            f"data.sandbox.labeler_agreement is {self.labeler_agreement}; use more than 0.5 (coin) up to 1 (no noise).",
        )


@dataclass
class DataConfig:
    source: DataSourceName = DataSourceName.sandbox
    path: str | None = None  # file, folder or hub id; the sandbox needs none
    prompts_path: str | None = None  # another file of the same source for PPO's prompts; None: the same rows
    template: Template = Template.auto
    max_prompt_tokens: int = 512  # a longer prompt is a bad row
    max_response_tokens: int = 512  # a longer response is cut there, without an end token
    evaluation_fraction: float = 0.1  # rows held out by a hash of the prompt; the sandbox holds out its own
    max_rows: int | None = None  # keep the first N rows; None: all
    on_bad_row: OnBadRow = OnBadRow.refuse
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)

    def __post_init__(self) -> None:
        _require_positive(
            "data", max_prompt_tokens=self.max_prompt_tokens, max_response_tokens=self.max_response_tokens
        )
        _require(
            0 < self.evaluation_fraction < 1,
            f"data.evaluation_fraction is {self.evaluation_fraction}; use a fraction above 0 and below 1.",
        )
        _require(
            self.max_rows is None or self.max_rows > 0, f"data.max_rows is {self.max_rows}; use 1 or more, or null."
        )
        _require(
            self.path is not None or self.source == DataSourceName.sandbox,
            f"data={self.source.value} needs a file; set data.path=FILE.",
        )


@dataclass
class OptimConfig:
    lr: float = 1e-5  # for models of about 10^8 to 10^9 weights; conf/model/sandbox-*.yaml pick theirs
    min_lr_ratio: float = 0.1  # the cosine ends at this share of lr; 1 keeps lr constant
    warmup_ratio: float = 0.0  # share of all steps over which lr rises from 0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # 0 does not clip

    def __post_init__(self) -> None:
        _require_positive("optim", lr=self.lr, eps=self.eps)
        _require_fraction("optim", min_lr_ratio=self.min_lr_ratio)
        _require_fraction("optim", open_above=True, warmup_ratio=self.warmup_ratio)
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"optim.betas is {self.betas}; give two numbers from 0 up to 1, such as [0.9,0.95].",
        )
        _require(self.weight_decay >= 0, f"optim.weight_decay is {self.weight_decay}; use 0 (off) or more.")
        _require(self.max_grad_norm >= 0, f"optim.max_grad_norm is {self.max_grad_norm}; use 0 (off) or more.")


@dataclass
class PretrainConfig:
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=3e-3, warmup_ratio=0.02))
    epochs: float = 6.0
    batch_size: int = 16  # sequences of sequence_length tokens a step; at equal tokens 16 learns far more here than 64
    sequence_length: int = 128
    bf16: bool = True  # bfloat16 autocast, float32 weights
    save_every: int = 2000  # steps

    def __post_init__(self) -> None:
        _require_positive(
            "pretrain",
            epochs=self.epochs,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            save_every=self.save_every,
        )


@dataclass
class SFTConfig:
    optim: OptimConfig = field(default_factory=OptimConfig)
    base: str | None = None  # model to start from; None: this run's pretrain stage when it has one, else model.path
    epochs: int = 2
    batch_size: int = 32  # sequences a step
    micro_batch_size_per_device: int = 8
    residual_dropout: float = 0.0  # on what attention and MLP add to the residual stream; InstructGPT 0.2
    packing: bool = False
    pretraining_fraction: float = 0.0  # share of rows that are pretraining text (InstructGPT's PPO initialisation: 0.1)
    select_by: SelectBy = SelectBy.validation_loss
    reward_model: str | None = None  # read by select_by=reward_model

    def __post_init__(self) -> None:
        _require_positive(
            "sft",
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size_per_device=self.micro_batch_size_per_device,
        )
        _require_fraction(
            "sft",
            open_above=True,
            residual_dropout=self.residual_dropout,
            pretraining_fraction=self.pretraining_fraction,
        )
        _require(
            self.batch_size % self.micro_batch_size_per_device == 0,
            f"sft.batch_size={self.batch_size} does not split into micro-batches of "
            f"{self.micro_batch_size_per_device}; change sft.micro_batch_size_per_device.",
        )
        _require(
            self.select_by != SelectBy.reward_model or self.reward_model is not None,
            "sft.select_by=reward_model needs a reward model; set sft.reward_model=PATH_OR_HUB_ID.",
        )


@dataclass
class RewardConfig:
    optim: OptimConfig = field(default_factory=OptimConfig)
    policy: str | None = None  # SFT model that initialises it and writes the completions; None: this run's SFT
    epochs: int = 1
    batch_size: int = 64  # prompts a step, each with its K completions
    micro_batch_size_per_device: int = 4  # prompts
    margin: bool = False  # subtract a row's stated margin from the score difference (Llama 2, arXiv:2307.09288, eq. 2)
    evaluate_every: int = 0  # steps; 0: once an epoch

    def __post_init__(self) -> None:
        _require_positive(
            "reward",
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size_per_device=self.micro_batch_size_per_device,
        )
        _require(
            self.batch_size % self.micro_batch_size_per_device == 0,
            f"reward.batch_size={self.batch_size} does not split into micro-batches of "
            f"{self.micro_batch_size_per_device}; change reward.micro_batch_size_per_device.",
        )


@dataclass
class KLConfig:
    coef: float = 0.05  # weight of the penalty, reward per nat; 0 trains without one and still measures KL
    target: float | None = None  # nats a response to steer to by changing coef (arXiv:1909.08593); None keeps it fixed
    horizon: int = 10000  # episodes over which the controller closes the gap

    def __post_init__(self) -> None:
        _require(self.coef >= 0, f"ppo.kl.coef is {self.coef}; use 0 or more (0 trains without a KL penalty).")
        _require(self.target is None or self.target > 0, f"ppo.kl.target is {self.target}; use more than 0, or null.")
        _require(
            self.target is None or self.coef > 0,
            "ppo.kl.target multiplies ppo.kl.coef, and 0 stays 0; start from ppo.kl.coef above 0.",
        )
        _require(self.horizon > 0, f"ppo.kl.horizon is {self.horizon}; use 1 or more.")


@dataclass
class PtxConfig:
    coef: float = 0.0  # weight of the pretraining loss beside PPO's; 0 is off, InstructGPT 27.8
    per_episode: float = 1.0  # pretraining sequences for each episode (InstructGPT 8)
    sequence_length: int = 128  # tokens

    def __post_init__(self) -> None:
        _require(self.coef >= 0, f"ppo.ptx.coef is {self.coef}; use 0 (off) or more.")
        _require_positive("ppo.ptx", per_episode=self.per_episode, sequence_length=self.sequence_length)


@dataclass
class PPOConfig:
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=3e-6, min_lr_ratio=1.0))
    value_optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5, min_lr_ratio=1.0))
    policy: str | None = None  # where the policy starts and what its KL is measured against; None: this run's SFT
    reward_model: str | None = None  # None: this run's
    value_model: str | None = None  # what the value model starts from; None: the reward model
    episodes: int = 6400  # responses in all
    batch_size: int = 128  # responses an iteration
    num_minibatches: int = 2  # optimizer steps an inner epoch
    epochs: int = 4  # passes over each iteration's responses (InstructGPT 1)
    micro_batch_tokens: int = 8192  # tokens in one forward pass, padding included
    kl: KLConfig = field(default_factory=KLConfig)
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_clip_range: float = 0.2  # 0 does not clip
    whiten_advantages: bool = True
    whiten_rewards: bool = False  # divides rewards by their standard deviation; the mean stays
    score_clip: float = 0.0  # scores are cut to [-score_clip, score_clip]; 0 does not cut
    missing_eos_penalty: float = 1.0  # taken from the score of a response that did not end; 0 is off
    missing_eos_score: float | None = None  # the whole score of a response that did not end (TL;DR: -1); None: off
    warmup_iterations: int = 0  # lr of policy and value rises linearly from a tenth over these; 0 is off
    ema_decay: float = (
        0.0  # of the averaged policy that is saved as model/ (InstructGPT 0.992); 0 saves the policy itself
    )
    ptx: PtxConfig = field(default_factory=PtxConfig)
    share_base: bool = False  # one copy of the policy's weights for all roles, an adapter each; needs model.lora.r
    evaluate_every: int = 10  # iterations; held-out prompts, score, KL, gold where there is one; 0: only at the end
    evaluation_prompts: int = 128
    save_every: int = 10  # iterations

    def __post_init__(self) -> None:
        _require_positive(
            "ppo",
            episodes=self.episodes,
            batch_size=self.batch_size,
            num_minibatches=self.num_minibatches,
            epochs=self.epochs,
            micro_batch_tokens=self.micro_batch_tokens,
            clip_range=self.clip_range,
            evaluation_prompts=self.evaluation_prompts,
            save_every=self.save_every,
        )
        _require_fraction("ppo", gamma=self.gamma, gae_lambda=self.gae_lambda)
        _require_fraction("ppo", open_above=True, ema_decay=self.ema_decay)
        _require(
            self.batch_size % self.num_minibatches == 0,
            f"ppo.batch_size={self.batch_size} does not split into {self.num_minibatches} minibatches; "
            f"set ppo.num_minibatches to {_divisors_near(self.batch_size, self.num_minibatches)}.",
        )
        _require(
            self.episodes >= self.batch_size,
            f"ppo.episodes={self.episodes} is less than one batch; set ppo.batch_size to {self.episodes} or fewer.",
        )
        _require(
            self.missing_eos_score is None or self.missing_eos_penalty == 0,
            "ppo.missing_eos_score replaces the score and ppo.missing_eos_penalty lowers it; switch one off.",
        )
        for key in ("value_clip_range", "score_clip", "missing_eos_penalty", "evaluate_every", "warmup_iterations"):
            value = getattr(self, key)
            _require(value >= 0, f"ppo.{key} is {value}; use 0 (off) or more.")


def _divisors_near(total: int, wanted: int) -> str:
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    below = max(n for n in divisors if n <= wanted)
    above = min((n for n in divisors if n >= wanted), default=total)
    return f"{below} or {above}"


@dataclass
class RolloutConfig:
    temperature: float = 1.0  # divides the logits when sampling and in every log-prob
    max_new_tokens: int = 48
    batch_size: int = 256  # responses generated side by side

    def __post_init__(self) -> None:
        _require_positive(
            "rollout",
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )


@dataclass
class JudgeConfig:
    names: list[JudgeName] = field(default_factory=list)  # empty: the reward model, and gold where the data has it
    reward_model: str | None = None  # what the reward_model judge scores with; None: this run's reward model
    tie_margin: float = 0.0  # scores closer than this are a tie, in the judge's own unit

    def __post_init__(self) -> None:
        _require(self.tie_margin >= 0, f"judge.tie_margin is {self.tie_margin}; use 0 or more.")


@dataclass
class CompareConfig:
    candidates: dict[str, str] = field(default_factory=dict)  # further models by name: PATH_OR_HUB_ID
    baseline: str = "sft"  # whose responses the others are judged against
    prompts: int = 400
    temperature: float | None = None  # of the responses that are judged; None: rollout.temperature
    bootstrap_samples: int = 2000
    side_by_side: int = 24  # prompts shown in the report with every candidate's response

    def __post_init__(self) -> None:
        _require_positive(
            "compare",
            prompts=self.prompts,
            bootstrap_samples=self.bootstrap_samples,
            side_by_side=self.side_by_side,
        )
        _require(
            self.temperature is None or self.temperature > 0,
            f"compare.temperature is {self.temperature}; use more than 0 (0.01 is close to greedy), or null.",
        )


@dataclass
class ZeroConfig:
    stage: int = 0  # ZeRO stage: 0 trains without DeepSpeed; 1, 2, 3 shard optimizer state, gradients, parameters
    offload: bool = False  # optimizer state (and at 3 parameters) in CPU memory

    def __post_init__(self) -> None:
        _require(self.stage in (0, 1, 2, 3), f"zero.stage is {self.stage}; use 0 (no DeepSpeed), 1, 2 or 3.")
        _require(not self.offload or self.stage > 0, "zero.offload needs DeepSpeed; set zero=2 or zero=3.")


@dataclass
class TrackerConfig:
    """metrics.jsonl is always written; these add to it."""

    wandb: bool = False
    wandb_project: str = "rlhf"
    wandb_mode: str = "offline"  # offline reaches no network; online uploads
    tensorboard: bool = False
    progress: bool = True  # bars on the terminal

    def __post_init__(self) -> None:
        _require(
            self.wandb_mode in ("offline", "online"),
            f"tracker.wandb_mode is {self.wandb_mode!r}; use offline or online.",
        )


@dataclass
class Config:
    stage: StageName = StageName.all
    seed: int = 0
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)

    def __post_init__(self) -> None:
        _require(
            self.data.source == DataSourceName.sandbox or JudgeName.gold not in self.judge.names,
            f"judge.names holds gold, which only data=sandbox has; with data={self.data.source.value} use "
            "judge=reward_model.",
        )
        _require(
            not self.ppo.share_base or self.model.lora.r > 0,
            "ppo.share_base keeps an adapter for each role on one base; set model.lora.r=16, or ppo.share_base=false.",
        )
