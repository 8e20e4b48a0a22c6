"""The configuration: dataclasses are the schema, files under conf/ pick values.

`Config` is the root. Hydra composes it, `OmegaConf.to_object` turns it into these plain objects once, and from there on
nothing in the project sees a DictConfig. Every field says its meaning, unit and "off" value; a combination that cannot
work raises ValueError here, before torch is imported.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum


class StageName(Enum):
    all = "all"  # sft, reward, ppo, compare, in this order
    pretrain = "pretrain"
    sft = "sft"
    reward = "reward"
    ppo = "ppo"
    compare = "compare"
    data = "data"  # shows what is in the data, as a model would learn from it; trains nothing
    self_instruct = "self_instruct"  # grows a data set of instructions from seed tasks, with a model
    plan = "plan"  # prints what the chain would take of a GPU's memory, and runs nothing


CHAIN = (StageName.sft, StageName.reward, StageName.ppo, StageName.compare)  # what stage=all means


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


class Float32Matmul(Enum):
    """torch.set_float32_matmul_precision; each names the least precise product that is allowed."""

    auto = "auto"  # medium on a CPU, where it is oneDNN's and agrees to 1e-5; highest on a GPU
    highest = "highest"
    high = "high"
    medium = "medium"


class DataSourceName(Enum):
    sandbox = "sandbox"  # the built-in instruction world
    jsonl = "jsonl"  # a file of one's own, of any common shape: rlhf/data/readers/jsonl.py
    mixture = "mixture"  # several of the others, as a YAML file says: rlhf/data/mixture.py
    phrasings = "phrasings"  # rows of a task, put into words by templates: rlhf/data/phrasings.py
    # Demonstrations; each is a module of rlhf/data/readers/.
    alpaca = "alpaca"
    dolly = "dolly"
    flan = "flan"
    flan_cot = "flan_cot"
    gpt4_llm = "gpt4_llm"
    instructgpt = "instructgpt"
    lima = "lima"
    openassistant = "openassistant"  # rankings too
    openhermes = "openhermes"
    self_instruct = "self_instruct"
    sharegpt = "sharegpt"
    slimorca = "slimorca"
    t0 = "t0"
    ultrachat = "ultrachat"
    # Rankings, whose best completions are demonstrations too.
    helpsteer = "helpsteer"
    hh_rlhf = "hh_rlhf"
    safe_rlhf = "safe_rlhf"  # by its label of helpfulness
    safe_rlhf_safer = "safe_rlhf_safer"  # by its label of safety
    shp = "shp"
    summarize_from_feedback = "summarize_from_feedback"
    ultrafeedback = "ultrafeedback"
    webgpt = "webgpt"


class Template(Enum):
    auto = "auto"  # the tokenizer's own chat template; `plain` when it has none
    plain = "plain"  # "Human: ...\n\nAssistant:"
    chatml = "chatml"
    llama3 = "llama3"
    alpaca = "alpaca"
    vicuna = "vicuna"
    zephyr = "zephyr"


class LongPrompts(Enum):
    refuse = "refuse"  # a bad row
    truncate = "truncate"  # its oldest turns are left out, whole exchanges at a time, and it is counted


class Sampling(Enum):
    weights = "weights"  # each part's share is its weight
    proportional = "proportional"  # examples-proportional: min(rows, data.mixture.cap), as FLAN's
    temperature = "temperature"  # the same numbers to the power 1 / data.mixture.temperature


class LossOn(Enum):
    last = "last"  # the last assistant turn of a conversation
    all = "all"  # every assistant turn


class SubsetRule(Enum):
    reward_model = "reward_model"  # the best by a reward model's score
    longest = "longest"  # the longest responses, in tokens (arXiv:2402.04833)
    random = "random"


class OnBadRow(Enum):
    refuse = "refuse"
    skip = "skip"  # counted, and listed in bad_rows.jsonl in the stage's folder


class SelectBy(Enum):
    validation_loss = "validation_loss"
    reward_model = "reward_model"  # mean score of sampled responses to held-out prompts, as InstructGPT chose
    last = "last"


class KLEstimator(Enum):
    k1 = "k1"  # log policy - log reference
    k2 = "k2"  # half its square
    k3 = "k3"  # r - 1 - log r, r = reference / policy


class KLPlacement(Enum):
    reward = "reward"  # taken from the reward of each token, as InstructGPT
    loss = "loss"  # a term of the policy's loss, as GRPO


class Advantage(Enum):
    gae = "gae"  # a value model and GAE, each token its own (arXiv:1506.02438)
    rloo = "rloo"  # less the mean reward of the prompt's other responses, one number a response (arXiv:2402.14740)
    group = "group"  # less the mean, over the std of the prompt's responses, one number a response (arXiv:2402.03300)


class ValueHead(Enum):
    separate = "separate"  # a model of its own, from the reward model, as InstructGPT
    shared = "shared"  # a head on the policy's trunk, which the value loss trains too


class LossMean(Enum):
    token = "token"  # over all tokens of the minibatch, as PPO's paper (its mean is over time steps)
    sequence = "sequence"  # over responses, of the mean over each one's tokens, as GRPO's


class Keep(Enum):
    last = "last"
    best = "best"  # by eval/score - ppo.kl.coef * eval/kl on the held-out prompts, the starting policy among them


class JudgeName(Enum):
    gold = "gold"  # the sandbox's own rubric
    reward_model = "reward_model"


class RolloutEngineName(Enum):
    hf = "hf"  # our own sampling loop over the policy itself
    paged = "paged"  # Transformers' continuous batching over the policy itself; made for GPUs
    vllm = "vllm"  # vLLM in this process, weights copied to it before every rollout
    vllm_server = "vllm_server"  # a vLLM server that someone started, weights handed over through a folder


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
    keep_checkpoints: int = 2  # of a stage, the newest; one that is damaged is passed over, hence more than one
    save_minutes: float = 10.0  # sft, reward, pretrain: between checkpoints at most; an interruption loses no more

    def __post_init__(self) -> None:
        _require_positive("run", keep_checkpoints=self.keep_checkpoints, save_minutes=self.save_minutes)
        _require(
            self.name not in ("", ".", "..") and "/" not in self.name,
            f"run.name is {self.name!r}; use one folder name, and run.root for where it lies.",
        )


@dataclass
class LaunchConfig:
    device: Device = Device.auto
    threads: int | None = None  # CPU threads of torch; None: one a core
    float32_matmul: Float32Matmul = Float32Matmul.auto  # how exact products of float32 matrices are
    gpus_per_node: int = 1  # processes to start here, one a GPU; on a CPU processes alike; ignored under torchrun

    def __post_init__(self) -> None:
        _require_positive("launch", gpus_per_node=self.gpus_per_node)


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
class FreezeConfig:
    """Weights that no stage trains, of the policy and of reward and value model alike; they have no optimizer state."""

    names: list[str] = field(default_factory=list)  # whole parts of weights' names: embed_tokens, layers.0, *_proj
    first_layers: int = 0  # layers, counted from the input, embeddings not included; 0: none

    def __post_init__(self) -> None:
        _require(self.first_layers >= 0, f"model.freeze.first_layers is {self.first_layers}; use 0 (none) or more.")


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
    attn_implementation: str | None = None  # eager, sdpa, flash_attention_2, or varlen: sdpa, and no padding on GPUs
    trust_remote_code: bool = False  # runs Python that ships with the model; off unless you know the author
    gradient_checkpointing: bool = False
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
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
    pretraining_documents: int = 600000  # about 41 tokens each
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
class MixtureConfig:
    """Read by data=mixture, whose parts and weights are in its file."""

    sampling: Sampling = Sampling.proportional
    cap: int = 3000  # rows of a part that count for its share (FLAN's 3,000); sampling=proportional and temperature
    max_rows_per_part: int | None = 30000  # rows a part is cut to first (FLAN's 30,000); null: all
    temperature: float = 2.0  # 1 is proportional, larger brings the shares closer together
    rows: int | None = None  # rows of the whole mixture; null: as many as there are without taking one twice

    def __post_init__(self) -> None:
        _require_positive("data.mixture", cap=self.cap, temperature=self.temperature)
        for key in ("max_rows_per_part", "rows"):
            value = getattr(self, key)
            _require(value is None or value > 0, f"data.mixture.{key} is {value}; use 1 or more, or null.")


@dataclass
class QualityConfig:
    """What is left out of the data; each record left out is listed with its reason in bad_rows.jsonl."""

    duplicates: bool = False  # records whose words came before, case and spaces aside
    near_duplicates: float = 0.0  # Jaccard similarity of word 5-grams from which a record counts as one; 0: off
    common_prefix: int = 0  # a prompt that begins with so many characters of an earlier one goes; 0: off
    min_response_words: int = 0  # of every response; 0: off
    max_response_words: int | None = None
    languages: list[str] = field(default_factory=list)  # ISO 639-1 codes; texts under 20 letters stay; []: all
    contamination_words: int = 0  # in a row that no training record shares with a held-out prompt (GPT-3: 13); 0: off
    max_prompts_per_user: int = 0  # as InstructGPT's 200; 0: off
    pii: bool = False  # leave out records with e-mail or public IP addresses, phone, card or social security numbers

    def __post_init__(self) -> None:
        _require_fraction("data.quality", near_duplicates=self.near_duplicates)
        for key in ("common_prefix", "min_response_words", "contamination_words", "max_prompts_per_user"):
            value = getattr(self, key)
            _require(value >= 0, f"data.quality.{key} is {value}; use 0 (off) or more.")
        _require(
            self.max_response_words is None or self.max_response_words >= self.min_response_words,
            f"data.quality.max_response_words is {self.max_response_words}; use no less than "
            f"data.quality.min_response_words={self.min_response_words}, or null.",
        )


# What a file of one's own may have, by the names that rlhf/data/readers/jsonl.py knows.
_COLUMNS = (
    *("prompt", "response", "instruction", "input", "output", "system", "messages", "conversations", "chosen"),
    *("rejected", "completions", "ranks", "scores", "margins", "gold_scores", "text", "id", "task", "user"),
)


@dataclass
class DataConfig:
    source: DataSourceName = DataSourceName.sandbox
    path: str | None = None  # file, folder or hub id; the sandbox needs none
    prompts_path: str | None = None  # another file of the same source for PPO's prompts; None: the same rows
    subset: str | None = None  # of a hub dataset, where it has several
    split: str = "train"  # of a hub dataset
    streaming: bool = False  # a hub dataset is read as it arrives, as far as data.max_rows, and not downloaded whole
    columns: dict[str, str] = field(default_factory=dict)  # what your file calls them: data.columns.prompt=question
    phrasings: str | None = None  # data=phrasings: the YAML file of templates, or builtin
    template: Template = Template.auto
    max_prompt_tokens: int = 512  # a longer prompt is dealt with by long_prompts
    long_prompts: LongPrompts = LongPrompts.refuse
    max_response_tokens: int = 512  # a longer response is cut there, without an end token
    evaluation_fraction: float = 0.1  # rows held out by a hash of the prompt; the sandbox holds out its own
    split_by_user: bool = False  # hold out users and all they wrote, not prompts; rows need a user
    max_rows: int | None = None  # keep the first N rows; None: all
    on_bad_row: OnBadRow = OnBadRow.refuse
    workers: int | None = None  # processes that tokenize; None: one a core
    cache: str | None = None  # folder of read and tokenized data; None: ~/.cache/rlhf, or under $XDG_CACHE_HOME
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
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
        _require(
            (self.phrasings is not None) == (self.source == DataSourceName.phrasings),
            "data=phrasings and data.phrasings=FILE, the templates, belong together; set both or neither.",
        )
        _require(
            not self.columns or self.source == DataSourceName.jsonl,
            f"data.columns names the columns of a file of your own; with data={self.source.value} leave it out, or use "
            "data=jsonl.",
        )
        for name in self.columns:
            _require(
                name in _COLUMNS, f"data.columns.{name} names nothing that is read; use one of {', '.join(_COLUMNS)}."
            )
        _require(
            self.workers is None or self.workers > 0,
            f"data.workers is {self.workers}; use 1 or more, or null.",
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
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1.2e-3, warmup_ratio=0.02))
    epochs: float = 1.0  # passes over the text
    batch_size: int = 16  # sequences of sequence_length tokens a step
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
    loss_on: LossOn = LossOn.last  # the last assistant turn of a conversation, or all of them
    subset: int | None = None  # train on so many demonstrations, the best by subset_rule, as LIMA's 1,000; None: all
    subset_rule: SubsetRule = SubsetRule.longest  # an equal share of every task, each one's best
    pretraining_fraction: float = 0.0  # share of rows that are pretraining text (InstructGPT's PPO initialisation: 0.1)
    select_by: SelectBy = SelectBy.validation_loss
    reward_model: str | None = None  # read by select_by=reward_model and subset_rule=reward_model

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
        _require(self.subset is None or self.subset > 0, f"sft.subset is {self.subset}; use 1 or more, or null (all).")
        _require(
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
    estimator: KLEstimator = KLEstimator.k1  # of the penalty; objective/kl is k1 whatever this is
    placement: KLPlacement = KLPlacement.reward  # in the reward, where only k1 has the KL's gradient, or in the loss
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
class LimitsConfig:
    """Beyond these something is broken, and the run stops with advice; null: no limit."""

    kl: float | None = 1000.0  # objective/kl, nats a response
    ratio: float | None = 10000.0  # policy/ratio_max, of a token within an update

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(value is None or value > 1, f"ppo.limits.{name} is {value}; use more than 1, or null (no limit).")


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
    episodes: int = 6400  # responses in all, rounded up to whole batches
    batch_size: int = 128  # responses an iteration
    num_minibatches: int = 2  # optimizer steps an inner epoch
    epochs: int = 4  # passes over each iteration's responses (InstructGPT 1)
    micro_batch_tokens: int = 8192  # tokens in one forward pass, padding included
    kl: KLConfig = field(default_factory=KLConfig)
    advantage: Advantage = Advantage.gae  # rloo and group train no value model; both sum rewards, KL included
    samples_per_prompt: int = 1  # responses to each prompt of a batch; rloo and group need 2 or more
    gamma: float = 1.0
    gae_lambda: float = 0.95  # read by advantage=gae
    clip_range: float = 0.2
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
            samples_per_prompt=self.samples_per_prompt,
            value_coef=self.value_coef,
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
            _require(value >= 0, f"ppo.{key} is {value}; use 0 (off) or more.")
        _require(
            self.dual_clip == 0 or self.dual_clip > 1,
            f"ppo.dual_clip is {self.dual_clip}; use more than 1 (such as 3), or 0 (off).",
        )
        _require(
            self.target_kl is None or self.target_kl > 0,
            f"ppo.target_kl is {self.target_kl}; use more than 0 (such as 0.02), or null (off).",
        )
        _require(
            self.rollout_correction_cap == 0 or self.rollout_correction_cap >= 1,
            f"ppo.rollout_correction_cap is {self.rollout_correction_cap}; use 1 or more (such as 2), or 0 (off).",
        )
        _require(
            self.max_kl is None or self.max_kl > 0,
            f"ppo.max_kl is {self.max_kl}; use more than 0 nats, or null (no budget).",
        )
        _require(
            self.keep != Keep.best or self.evaluate_every > 0,
            "ppo.keep=best chooses among evaluations, of which ppo.evaluate_every=0 makes one; set it to 1 or more.",
        )
        self._check_rewards()
        self._check_advantage()
        _require(
            self.value_warmup_iterations < self.iterations,
            f"ppo.value_warmup_iterations={self.value_warmup_iterations} leaves no iteration to train the policy in; "
            f"there are {self.iterations}, raise ppo.episodes.",
        )

    def _check_advantage(self) -> None:
        """A prompt's responses are compared within a batch, and without a value model nothing of it may be set."""
        _require(
            self.batch_size % self.samples_per_prompt == 0,
            f"ppo.batch_size={self.batch_size} is no multiple of ppo.samples_per_prompt={self.samples_per_prompt}; set "
            f"ppo.samples_per_prompt to {_divisors_near(self.batch_size, self.samples_per_prompt)}.",
        )
        if self.advantage == Advantage.gae:
            self._check_value_head()
            return
        chosen = f"ppo.advantage={self.advantage.value}"
        _require(
            self.samples_per_prompt >= 2,
            f"{chosen} compares responses to one prompt; set ppo.samples_per_prompt to 2 or more, such as 4.",
        )
        _require(
            self.gamma == 1,
            f"{chosen} takes a response as one action, so there is nothing to discount; set ppo.gamma=1.",
        )
        _require(
            self.value_head == ValueHead.separate, f"{chosen} trains no value model; leave ppo.value_head=shared out."
        )
        for key in ("value_model", "value_warmup_iterations"):
            value = getattr(self, key)
            _require(not value, f"{chosen} trains no value model, which ppo.{key}={value} is about; leave that out.")

    def _check_value_head(self) -> None:
        if self.value_head == ValueHead.shared:
            for key, why in (
                ("value_model", "starts on the policy's trunk"),
                ("value_warmup_iterations", "cannot be trained without the policy"),
            ):
                value = getattr(self, key)
                _require(not value, f"ppo.value_head=shared {why}, so leave out ppo.{key}={value}.")

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
        _require(
            self.reward_fn is None or re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", self.reward_fn) is not None,
            f"ppo.reward_fn is {self.reward_fn}; name a function in a module as my.module:score.",
        )
        for name in self.reward_models:
            _require(
                re.fullmatch(r"[\w-]+", name) is not None and name not in ("reward_model", "reward_fn"),
                f"ppo.reward_models has the name {name!r}; use letters, digits, _ and -, and neither reward_model nor "
                "reward_fn, which are other sources of the score.",
            )
        sources = ["reward_model", *self.reward_models, *(["reward_fn"] if self.reward_fn is not None else [])]
        for name, weight in self.reward_weights.items():
            _require(
                name in sources,
                f"ppo.reward_weights.{name} weighs no source of the score; there are {', '.join(sources)}.",
            )
            _require(math.isfinite(weight), f"ppo.reward_weights.{name} is {weight}; use a finite number.")


def _divisors_near(total: int, wanted: int) -> str:
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    below = max(n for n in divisors if n <= wanted)
    above = min((n for n in divisors if n >= wanted), default=total)
    return f"{below} or {above}"


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
        _require_positive("rollout.vllm", kv_cache_gib=self.kv_cache_gib, timeout_s=self.timeout_s)
        _require(
            self.url.startswith(("http://", "https://")),
            f"rollout.vllm.url is {self.url!r}; it starts with http:// or https://, such as http://localhost:8000.",
        )


@dataclass
class RolloutConfig:
    engine: RolloutEngineName = RolloutEngineName.hf  # who draws PPO's responses; other stages use hf
    temperature: float = 1.0  # divides the logits when sampling and in every log-prob
    max_new_tokens: int = 48
    batch_size: int = 256  # responses generated side by side
    cuda_graphs: bool = False  # hf on a GPU: a static cache, and each step replayed as a CUDA graph
    gather: bool = True  # zero=3: weights made whole once a rollout; false: layer by layer for every token (hf alone)
    vllm: VLLMConfig = field(default_factory=VLLMConfig)

    def __post_init__(self) -> None:
        _require_positive(
            "rollout",
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )
        _require(
            self.gather or (self.engine == RolloutEngineName.hf and not self.cuda_graphs),
            "rollout.gather=false works with rollout.engine=hf and rollout.cuda_graphs=false alone.",
        )
        if self.engine in (RolloutEngineName.vllm, RolloutEngineName.vllm_server):
            _require(
                self.temperature >= _VLLM_MIN_TEMPERATURE,
                f"rollout.temperature is {self.temperature}, which vLLM would raise to {_VLLM_MIN_TEMPERATURE}; use "
                "that or more, or rollout.engine=hf.",
            )
            _require(
                self.temperature <= _VLLM_MAX_TEMPERATURE,
                f"rollout.temperature is {self.temperature}, which vLLM refuses; use {_VLLM_MAX_TEMPERATURE} or "
                "less, or rollout.engine=hf.",
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
class SelfInstructServerConfig:
    """An OpenAI-compatible server that writes; the key it may need is read from OPENAI_API_KEY in the environment."""

    url: str | None = None  # up to and with /v1, such as http://localhost:8000/v1; null: the model is loaded here
    model: str | None = None  # what the server calls the model
    chat: bool = False  # ask /chat/completions, where a model is served no other way, and not /completions
    parallel: int = 8  # requests under way at a time
    timeout_s: float = 300.0  # wait this long for one answer
    retries: int = 6  # after the first try, with growing pauses; for 408, 429, 5xx and no answer. 0: none

    def __post_init__(self) -> None:
        _require_positive("self_instruct.server", parallel=self.parallel, timeout_s=self.timeout_s)
        _require(self.retries >= 0, f"self_instruct.server.retries is {self.retries}; use 0 (none) or more.")
        _require(
            self.url is None or self.url.startswith(("http://", "https://")),
            f"self_instruct.server.url is {self.url!r}; it starts with http:// or https://, such as "
            "http://localhost:8000/v1.",
        )
        _require(
            (self.url is None) == (self.model is None),
            "self_instruct.server needs both: set self_instruct.server.url=URL and self_instruct.server.model=NAME.",
        )


@dataclass
class SelfInstructConfig:
    """Instruction data that a model writes itself, from a few seed tasks (arXiv:2212.10560)."""

    model: str | None = None  # who writes: a hub id or local folder; null: model.path
    server: SelfInstructServerConfig = field(default_factory=SelfInstructServerConfig)  # or a server does
    seeds: str | None = None  # seed tasks, a JSON line each as in seed_tasks.jsonl; null: the sandbox's own
    instructions: int = 1000  # go on until so many are kept, each with an instance or more; the last round may add more
    seed_examples: int = 6  # seed tasks shown in a prompt for new ones, more while too few generated ones are there
    generated_examples: int = 2  # tasks of earlier rounds shown beside them
    proposals: int = 8  # new tasks that one prompt asks for
    prompts_per_round: int = 8  # a round is the step that an interruption loses at most
    instance_examples: int = 4  # seed tasks shown before an instruction is classified, or given instances
    max_instances: int = 5  # kept of an instruction, the first ones
    temperature: float = 0.7  # of new instructions
    instance_temperature: float = 0.1  # of their classification and instances; 0.01 is close to greedy
    instruction_tokens: int = 512  # at most, of one completion with new instructions
    instance_tokens: int = 384  # at most, of one completion with an instruction's instances
    max_similarity: float = 0.7  # ROUGE-L with another, seed or generated, from which an instruction is dropped
    min_words: int = 4  # of an instruction
    max_words: int = 150
    keywords: list[str] = field(  # an instruction with one of these words is dropped: a model of text cannot do it
        default_factory=lambda: [
            *("image", "images", "picture", "pictures", "graph", "graphs", "plot", "draw", "map", "maps"),
            *("file", "files", "video", "videos", "audio", "go to"),
        ]
    )
    patience: int = 5  # rounds in a row that may keep no instruction before the stage gives up

    def __post_init__(self) -> None:
        _require_positive(
            "self_instruct",
            instructions=self.instructions,
            seed_examples=self.seed_examples,
            proposals=self.proposals,
            prompts_per_round=self.prompts_per_round,
            max_instances=self.max_instances,
            temperature=self.temperature,
            instance_temperature=self.instance_temperature,
            instruction_tokens=self.instruction_tokens,
            instance_tokens=self.instance_tokens,
            max_similarity=self.max_similarity,
            min_words=self.min_words,
            patience=self.patience,
        )
        _require_fraction("self_instruct", max_similarity=self.max_similarity)
        for key in ("generated_examples", "instance_examples"):
            value = getattr(self, key)
            _require(value >= 0, f"self_instruct.{key} is {value}; use 0 (none) or more.")
        _require(
            self.max_words >= self.min_words,
            f"self_instruct.max_words is {self.max_words}; use self_instruct.min_words={self.min_words} or more.",
        )
        _require(
            self.model is None or self.server.url is None,
            f"self_instruct.model={self.model} and self_instruct.server.url={self.server.url} name two writers; "
            "leave one out.",
        )


@dataclass
class ZeroConfig:
    stage: int = 0  # ZeRO stage: 0 trains without DeepSpeed; 1, 2, 3 shard optimizer state, gradients, parameters
    offload: bool = False  # optimizer state (and at 3 parameters) in CPU memory

    def __post_init__(self) -> None:
        _require(self.stage in (0, 1, 2, 3), f"zero.stage is {self.stage}; use 0 (no DeepSpeed), 1, 2 or 3.")
        _require(not self.offload or self.stage > 0, "zero.offload needs DeepSpeed; set zero=2 or zero=3.")


@dataclass
class PlanConfig:
    gpu_memory_gib: float = 80.0  # of each GPU, for stage=plan to say what fits

    def __post_init__(self) -> None:
        _require_positive("plan", gpu_memory_gib=self.gpu_memory_gib)


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
    self_instruct: SelfInstructConfig = field(default_factory=SelfInstructConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)

    def __post_init__(self) -> None:
        _require(
            self.stage != StageName.pretrain or self.model.freeze == FreezeConfig(),
            "model.freeze keeps weights as they were, and stage=pretrain starts from none; leave it out.",
        )
        _require(
            self.data.source == DataSourceName.sandbox or JudgeName.gold not in self.judge.names,
            f"judge.names holds gold, which only data=sandbox has; with data={self.data.source.value} use "
            "judge=reward_model.",
        )
        sharded = self.zero.stage > 0 and self.stage in (StageName.all, StageName.ppo)
        _require(
            not (sharded and (self.ppo.share_base or self.ppo.value_head == ValueHead.shared)),
            f"zero.stage={self.zero.stage} shards models that share no weights; with ppo.share_base=true or "
            "ppo.value_head=shared use zero=none.",
        )
        _require(
            not (sharded and self.model.quantization != Quantization.none),
            f"zero.stage={self.zero.stage} does not shard quantized weights in PPO; use zero=none or "
            "model.quantization=none.",
        )
        _require(
            not self.ppo.share_base or self.model.lora.r > 0,
            "ppo.share_base keeps an adapter for each role on one base; set model.lora.r=16, or ppo.share_base=false.",
        )
