"""ppo.* and rollout.*: the policy's training, and who draws its responses."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from rlhf.config.checks import divisors_near, require, require_fraction, require_positive
from rlhf.config.choices import Advantage, Keep, KLEstimator, KLPlacement, LossMean, RolloutEngineName, ValueHead
from rlhf.config.stages import OptimConfig


@dataclass
class KLConfig:
    coef: float = 0.05  # weight of the penalty, reward per nat; 0 trains without one and still measures KL
    estimator: KLEstimator = KLEstimator.k1  # of the penalty; objective/kl is k1 whatever this is
    placement: KLPlacement = KLPlacement.reward  # in the reward, where only k1 has the KL's gradient, or in the loss
    target: float | None = None  # nats a response to steer to by changing coef (arXiv:1909.08593); None keeps it fixed
    horizon: int = 10000  # episodes over which the controller closes the gap

    def __post_init__(self) -> None:
        require(self.coef >= 0, f"ppo.kl.coef is {self.coef}; use 0 or more (0 trains without a KL penalty).")
        require(self.target is None or self.target > 0, f"ppo.kl.target is {self.target}; use more than 0, or null.")
        require(
            self.target is None or self.coef > 0,
            "ppo.kl.target multiplies ppo.kl.coef, and 0 stays 0; start from ppo.kl.coef above 0.",
        )
        require(self.horizon > 0, f"ppo.kl.horizon is {self.horizon}; use 1 or more.")


@dataclass
class PtxConfig:
    coef: float = 0.0  # weight of the pretraining loss beside PPO's; 0 is off, InstructGPT 27.8
    per_episode: float = 1.0  # pretraining sequences for each episode (InstructGPT 8)
    sequence_length: int = 128  # tokens

    def __post_init__(self) -> None:
        require(self.coef >= 0, f"ppo.ptx.coef is {self.coef}; use 0 (off) or more.")
        require_positive("ppo.ptx", per_episode=self.per_episode, sequence_length=self.sequence_length)


@dataclass
class LimitsConfig:
    """Beyond these something is broken, and the run stops with advice; null: no limit."""

    kl: float | None = 1000.0  # objective/kl, nats a response
    ratio: float | None = 10000.0  # policy/ratio_max, of a token within an update

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value is None or value > 1, f"ppo.limits.{name} is {value}; use more than 1, or null (no limit).")


@dataclass
class PPOConfig:
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=3e-6, min_lr_ratio=1.0))
    value_optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-5, min_lr_ratio=1.0))
    policy: str | None = None  # where the policy starts and what its KL is measured against; None: this run's SFT
    reward_model: str | None = None  # None: this run's, unless reward_models or reward_fn gives the score
    reward_models: dict[str, str] = field(default_factory=dict)  # further ones by name: PATH_OR_HUB_ID
    reward_fn: str | None = None  # a Python function, my.module:score, of prompts, responses and records
    reward_weights: dict[str, float] = field(
        default_factory=dict
    )  # of reward_model (this run's then), reward_fn and the names in reward_models; 1 where not given, 0 only logs
    value_model: str | None = None  # what it starts from; None: the first reward model, the policy where there is none
    seed: int | None = (
        None  # of this stage alone, whose siblings in a sweep then share SFT and reward model; None: seed
    )
    episodes: int = 6400  # responses in all, rounded up to whole batches
    batch_size: int = 128  # responses an iteration
    num_minibatches: int = 2  # optimizer steps an inner epoch
    epochs: int = 4  # passes over each iteration's responses (InstructGPT 1)
    micro_batch_tokens: int = 8192  # tokens in one forward pass, padding included
    kl: KLConfig = field(default_factory=KLConfig)
    advantage: Advantage = Advantage.gae  # rloo and group train no value model; both sum rewards, KL included
    samples_per_prompt: int = 1  # responses to each prompt of a batch; rloo and group need 2 or more
    gamma: float = 1.0  # discount a token; 1: none
    gae_lambda: float = 0.95  # read by advantage=gae
    clip_range: float = 0.2  # how far the ratio may move from 1
    dual_clip: float = 0.0  # c: with an advantage below 0 the loss stays under c * -advantage (Ye et al.: 3); 0 is off
    target_kl: float | None = None  # policy/approx_kl above which an iteration's other steps are left out; null is off
    entropy_coef: float = 0.0  # weight of the mean entropy of a token, nats, as a bonus to the policy; 0 is off
    loss_mean: LossMean = LossMean.token  # of the policy's loss; the value loss is a mean over tokens always
    rollout_correction_cap: float = 0.0  # each token's policy loss is weighed by policy / sampler up to this; 0 is off
    value_clip_range: float = 0.2  # 0 does not clip
    value_head: ValueHead = ValueHead.separate  # shared: values are a head on the policy's trunk, no model of their own
    value_coef: float = 1.0  # weight of the value loss; with value_head=shared against the policy's, on one trunk
    whiten_advantages: bool = True  # over all tokens of the batch; the papers of rloo and group do without
    whiten_rewards: bool = False  # divides rewards by their standard deviation; the mean stays
    scale_scores: bool = False  # divides scores by the standard deviation of all so far, then clips; the mean stays
    score_clip: float = 0.0  # scores are cut to [-score_clip, score_clip]; 0 does not cut
    missing_eos_penalty: float = 1.0  # taken from the score of a response that did not end; 0 is off
    missing_eos_score: float | None = None  # what a response that did not end scores instead (TL;DR: -1); None: off
    length_penalty: float = 0.0  # taken from the score, after the clip, for each token beyond the free ones; 0 is off
    length_penalty_from: int = 0  # response tokens that are free of length_penalty; 0: every token costs
    warmup_iterations: int = 0  # lr of policy and value rises linearly from a tenth over these; 0 is off
    value_warmup_iterations: int = 0  # the first of all, in which the value model alone is trained; 0 is off
    ema_decay: float = 0.0  # of the averaged policy, which is then what is saved (InstructGPT 0.992); 0 is off
    ptx: PtxConfig = field(default_factory=PtxConfig)
    max_kl: float | None = None  # nats a response; objective/kl above it ends the run there, saved; null: no such end
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    keep: Keep = Keep.last  # which policy is saved as model/; the value model saved is the last
    share_base: bool = False  # one copy of the policy's weights for all roles, an adapter each; needs model.lora.r
    evaluate_every: int = 10  # iterations; held-out prompts, score, KL, gold where there is one; 0: only at the end
    evaluation_prompts: int = 128  # held-out ones, at most
    save_every: int = 10  # iterations

    def __post_init__(self) -> None:
        require_positive(
            "ppo",
            episodes=self.episodes,
            batch_size=self.batch_size,
            num_minibatches=self.num_minibatches,
            epochs=self.epochs,
            micro_batch_tokens=self.micro_batch_tokens,
            clip_range=self.clip_range,
            evaluation_prompts=self.evaluation_prompts,
            save_every=self.save_every,
            samples_per_prompt=self.samples_per_prompt,
            value_coef=self.value_coef,
        )
        require_fraction("ppo", gamma=self.gamma, gae_lambda=self.gae_lambda)
        require_fraction("ppo", open_above=True, ema_decay=self.ema_decay)
        require(
            self.batch_size % self.num_minibatches == 0,
            f"ppo.batch_size={self.batch_size} does not split into {self.num_minibatches} minibatches; "
            f"set ppo.num_minibatches to {divisors_near(self.batch_size, self.num_minibatches)}.",
        )
        require(
            self.episodes >= self.batch_size,
            f"ppo.episodes={self.episodes} is less than one batch; set ppo.batch_size to {self.episodes} or fewer.",
        )
        require(
            self.missing_eos_score is None or self.missing_eos_penalty == 0,
            "ppo.missing_eos_score replaces the score and ppo.missing_eos_penalty lowers it; switch one off.",
        )
        for key in (
            "value_clip_range",
            "score_clip",
            "missing_eos_penalty",
            "evaluate_every",
            "warmup_iterations",
            "value_warmup_iterations",
            "entropy_coef",
            "length_penalty",
            "length_penalty_from",
        ):
            value = getattr(self, key)
            require(value >= 0, f"ppo.{key} is {value}; use 0 (off) or more.")
        require(
            self.dual_clip == 0 or self.dual_clip > 1,
            f"ppo.dual_clip is {self.dual_clip}; use more than 1 (such as 3), or 0 (off).",
        )
        require(
            self.target_kl is None or self.target_kl > 0,
            f"ppo.target_kl is {self.target_kl}; use more than 0 (such as 0.02), or null (off).",
        )
        require(
            self.rollout_correction_cap == 0 or self.rollout_correction_cap >= 1,
            f"ppo.rollout_correction_cap is {self.rollout_correction_cap}; use 1 or more (such as 2), or 0 (off).",
        )
        require(
            self.max_kl is None or self.max_kl > 0,
            f"ppo.max_kl is {self.max_kl}; use more than 0 nats, or null (no budget).",
        )
        require(
            self.keep != Keep.best or self.evaluate_every > 0,
            "ppo.keep=best chooses among evaluations, of which ppo.evaluate_every=0 makes one; set it to 1 or more.",
        )
        self._check_rewards()
        self._check_advantage()
        require(
            self.value_warmup_iterations < self.iterations,
            f"ppo.value_warmup_iterations={self.value_warmup_iterations} leaves no iteration to train the policy in; "
            f"there are {self.iterations}, raise ppo.episodes.",
        )

    def _check_advantage(self) -> None:
        """A prompt's responses are compared within a batch, and without a value model nothing of it may be set."""
        require(
            self.batch_size % self.samples_per_prompt == 0,
            f"ppo.batch_size={self.batch_size} is no multiple of ppo.samples_per_prompt={self.samples_per_prompt}; set "
            f"ppo.samples_per_prompt to {divisors_near(self.batch_size, self.samples_per_prompt)}.",
        )
        if self.advantage == Advantage.gae:
            self._check_value_head()
            return
        chosen = f"ppo.advantage={self.advantage.value}"
        require(
            self.samples_per_prompt >= 2,
            f"{chosen} compares responses to one prompt; set ppo.samples_per_prompt to 2 or more, such as 4.",
        )
        require(
            self.gamma == 1,
            f"{chosen} takes a response as one action, so there is nothing to discount; set ppo.gamma=1.",
        )
        require(
            self.value_head == ValueHead.separate, f"{chosen} trains no value model; leave ppo.value_head=shared out."
        )
        for key in ("value_model", "value_warmup_iterations"):
            value = getattr(self, key)
            require(not value, f"{chosen} trains no value model, which ppo.{key}={value} is about; leave that out.")

    def _check_value_head(self) -> None:
        if self.value_head == ValueHead.shared:
            for key, why in (
                ("value_model", "starts on the policy's trunk"),
                ("value_warmup_iterations", "cannot be trained without the policy"),
            ):
                value = getattr(self, key)
                require(not value, f"ppo.value_head=shared {why}, so leave out ppo.{key}={value}.")

    @property
    def has_value_model(self) -> bool:
        """A value model of its own, loaded and trained beside the policy."""
        return self.advantage == Advantage.gae and self.value_head == ValueHead.separate

    @property
    def iterations(self) -> int:
        """Batches of ppo.batch_size responses; the last is whole too."""
        return -(-self.episodes // self.batch_size)

    @property
    def takes_reward_model(self) -> bool:
        """True if `reward_model` is a source of the score: named, weighted, or the only one there can be."""
        named = self.reward_model is not None or "reward_model" in self.reward_weights
        return named or not (self.reward_models or self.reward_fn)

    def _check_rewards(self) -> None:
        require(
            self.reward_fn is None or re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", self.reward_fn) is not None,
            f"ppo.reward_fn is {self.reward_fn}; name a function in a module as my.module:score.",
        )
        for name in self.reward_models:
            require(
                re.fullmatch(r"[\w-]+", name) is not None and name not in ("reward_model", "reward_fn"),
                f"ppo.reward_models has the name {name!r}; use letters, digits, _ and -, and neither reward_model nor "
                "reward_fn, which are other sources of the score.",
            )
        sources = ["reward_model", *self.reward_models, *(["reward_fn"] if self.reward_fn is not None else [])]
        for name, weight in self.reward_weights.items():
            require(
                name in sources,
                f"ppo.reward_weights.{name} weighs no source of the score; there are {', '.join(sources)}.",
            )
            require(math.isfinite(weight), f"ppo.reward_weights.{name} is {weight}; use a finite number.")


# vLLM takes any temperature below the first for the first, and refuses one above the second.
_VLLM_MIN_TEMPERATURE, _VLLM_MAX_TEMPERATURE = 0.01, 2.0


@dataclass
class VLLMConfig:
    """Read by rollout.engine=vllm and vllm_server alone."""

    kv_cache_gib: float = 4.0  # GiB for keys and values, engine vllm: room for more responses side by side
    url: str = "http://localhost:8000"  # of the server
    sync_folder: str | None = None  # where weights are handed to the server, seen by both; None: in the stage's folder
    timeout_s: float = 600.0  # wait this long for one answer of the server

    def __post_init__(self) -> None:
        require_positive("rollout.vllm", kv_cache_gib=self.kv_cache_gib, timeout_s=self.timeout_s)
        require(
            self.url.startswith(("http://", "https://")),
            f"rollout.vllm.url is {self.url!r}; it starts with http:// or https://, such as http://localhost:8000.",
        )


@dataclass
class RolloutConfig:
    engine: RolloutEngineName = RolloutEngineName.hf  # who draws PPO's responses; other stages use hf
    temperature: float = 1.0  # divides the logits when sampling and in every log-prob
    max_new_tokens: int = 48  # of a response, at most
    batch_size: int = 256  # responses generated side by side
    cuda_graphs: bool = False  # hf on a GPU: a static cache, and each step replayed as a CUDA graph
    gather: bool = True  # zero=3: weights made whole once a rollout; false: layer by layer for every token (hf alone)
    vllm: VLLMConfig = field(default_factory=VLLMConfig)

    def __post_init__(self) -> None:
        require_positive(
            "rollout",
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )
        require(
            self.gather or (self.engine == RolloutEngineName.hf and not self.cuda_graphs),
            "rollout.gather=false works with rollout.engine=hf and rollout.cuda_graphs=false alone.",
        )
        if self.engine in (RolloutEngineName.vllm, RolloutEngineName.vllm_server):
            require(
                self.temperature >= _VLLM_MIN_TEMPERATURE,
                f"rollout.temperature is {self.temperature}, which vLLM would raise to {_VLLM_MIN_TEMPERATURE}; use "
                "that or more, or rollout.engine=hf.",
            )
            require(
                self.temperature <= _VLLM_MAX_TEMPERATURE,
                f"rollout.temperature is {self.temperature}, which vLLM refuses; use {_VLLM_MAX_TEMPERATURE} or "
                "less, or rollout.engine=hf.",
            )
