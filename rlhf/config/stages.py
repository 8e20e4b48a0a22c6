"""The stages before PPO: pretrain.*, sft.*, reward.*."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_fraction, require_positive
from rlhf.config.choices import LossOn, SelectBy, SubsetRule


@dataclass
class OptimConfig:
    lr: float = 1e-5  # for models of about 10^8 to 10^9 weights; conf/model/sandbox-*.yaml pick theirs
    min_lr_ratio: float = 0.1  # the cosine ends at this share of lr; 1 keeps lr constant
    warmup_ratio: float = 0.0  # share of all steps over which lr rises from 0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])  # AdamW's
    eps: float = 1e-8  # AdamW's
    weight_decay: float = 0.0  # AdamW's; 0 is off
    max_grad_norm: float = 1.0  # 0 does not clip

    def __post_init__(self) -> None:
        require_positive("optim", lr=self.lr, eps=self.eps)
        require_fraction("optim", min_lr_ratio=self.min_lr_ratio)
        require_fraction("optim", open_above=True, warmup_ratio=self.warmup_ratio)
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"optim.betas is {self.betas}; give two numbers from 0 up to 1, such as [0.9,0.95].",
        )
        require(self.weight_decay >= 0, f"optim.weight_decay is {self.weight_decay}; use 0 (off) or more.")
        require(self.max_grad_norm >= 0, f"optim.max_grad_norm is {self.max_grad_norm}; use 0 (off) or more.")


@dataclass
class PretrainConfig:
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1.2e-3, warmup_ratio=0.02))
    epochs: float = 1.0  # passes over the text
    batch_size: int = 16  # sequences of sequence_length tokens a step
    sequence_length: int = 128  # tokens of each
    bf16: bool = True  # bfloat16 autocast, float32 weights
    save_every: int = 2000  # steps

    def __post_init__(self) -> None:
        require_positive(
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
    epochs: int = 2  # passes over the demonstrations
    batch_size: int = 32  # sequences a step
    micro_batch_size_per_device: int = 8  # sequences in one forward pass
    residual_dropout: float = 0.0  # on what attention and MLP add to the residual stream; InstructGPT 0.2
    packing: bool = False  # several to a row of full length; without flash attention, as on a CPU, slow and large
    loss_on: LossOn = LossOn.last  # the last assistant turn of a conversation, or all of them
    subset: int | None = None  # train on so many demonstrations, the best by subset_rule, as LIMA's 1,000; None: all
    subset_rule: SubsetRule = SubsetRule.longest  # an equal share of every task, each one's best
    pretraining_fraction: float = 0.0  # share of rows that are pretraining text (InstructGPT's PPO initialisation: 0.1)
    select_by: SelectBy = SelectBy.validation_loss  # which epoch's model is kept
    reward_model: str | None = None  # read by select_by=reward_model and subset_rule=reward_model

    def __post_init__(self) -> None:
        require_positive(
            "sft",
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size_per_device=self.micro_batch_size_per_device,
        )
        require_fraction(
            "sft",
            open_above=True,
            residual_dropout=self.residual_dropout,
            pretraining_fraction=self.pretraining_fraction,
        )
        require(
            self.batch_size % self.micro_batch_size_per_device == 0,
            f"sft.batch_size={self.batch_size} does not split into micro-batches of "
            f"{self.micro_batch_size_per_device}; change sft.micro_batch_size_per_device.",
        )
        require(self.subset is None or self.subset > 0, f"sft.subset is {self.subset}; use 1 or more, or null (all).")
        require(
            not self.needs_reward_model or self.reward_model is not None,
            "sft.select_by=reward_model and sft.subset_rule=reward_model need a reward model; set "
            "sft.reward_model=PATH_OR_HUB_ID.",
        )

    @property
    def needs_reward_model(self) -> bool:
        """Whether a reward model chooses anything: the checkpoint that is kept, or the rows."""
        by_score = self.subset is not None and self.subset_rule == SubsetRule.reward_model
        return by_score or self.select_by == SelectBy.reward_model


@dataclass
class RewardConfig:
    optim: OptimConfig = field(default_factory=OptimConfig)
    policy: str | None = None  # SFT model that initialises it and writes the completions; None: this run's SFT
    epochs: int = 1  # passes over the rankings
    batch_size: int = 64  # prompts a step, each with its K completions
    micro_batch_size_per_device: int = 4  # prompts
    margin: bool = False  # subtract a row's stated margin from the score difference (Llama 2, arXiv:2307.09288, eq. 2)
    evaluate_every: int = 0  # steps; 0: once an epoch

    def __post_init__(self) -> None:
        require_positive(
            "reward",
            epochs=self.epochs,
            batch_size=self.batch_size,
            micro_batch_size_per_device=self.micro_batch_size_per_device,
        )
        require(
            self.batch_size % self.micro_batch_size_per_device == 0,
            f"reward.batch_size={self.batch_size} does not split into micro-batches of "
            f"{self.micro_batch_size_per_device}; change reward.micro_batch_size_per_device.",
        )
