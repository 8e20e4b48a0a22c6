"""data.*: what is read, how it is laid out, what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_fraction, require_positive
from rlhf.config.choices import DataSourceName, LongPrompts, OnBadRow, Sampling, Template


@dataclass
class SandboxConfig:
    """How much the built-in world writes. Everything is a function of these numbers and `seed`."""

    world_seed: int = 0  # facts, templates, splits; kept apart from `seed` so that seeds share one world
    demonstrations: int = 8000  # written by the imperfect writers
    ranking_prompts: int = 3000  # whose completions are ranked
    prompts: int = 8000  # for PPO
    evaluation_prompts: int = 400  # held out of everything
    pretraining_documents: int = 600000  # about 41 tokens each
    min_completions: int = 4  # K is drawn evenly from [min, max] for each ranking
    max_completions: int = 9  # of a ranking
    labeler_agreement: float = 0.73  # how often two labelers order a pair alike (InstructGPT: 73 %)

    def __post_init__(self) -> None:
        counts = {k: v for k, v in vars(self).items() if k not in ("world_seed", "labeler_agreement")}
        require_positive("data.sandbox", **counts)
        require(
            2 <= self.min_completions <= self.max_completions,
            f"data.sandbox.min_completions={self.min_completions} and max_completions={self.max_completions}; "
            "a ranking needs 2 or more, and max at least min.",
        )
        require(
            0.5 < self.labeler_agreement <= 1,
            f"data.sandbox.labeler_agreement is {self.labeler_agreement}; use more than 0.5 (coin) up to 1 (no noise).",
        )


@dataclass
class MixtureConfig:
    """Read by data=mixture, whose parts and weights are in its file."""

    sampling: Sampling = Sampling.proportional  # how shares of the parts are found
    cap: int = 3000  # rows of a part that count for its share (FLAN's 3,000); sampling=proportional and temperature
    max_rows_per_part: int | None = 30000  # rows a part is cut to first (FLAN's 30,000); null: all
    temperature: float = 2.0  # 1 is proportional, larger brings the shares closer together
    rows: int | None = None  # rows of the whole mixture; null: as many as there are without taking one twice

    def __post_init__(self) -> None:
        require_positive("data.mixture", cap=self.cap, temperature=self.temperature)
        for key in ("max_rows_per_part", "rows"):
            value = getattr(self, key)
            require(value is None or value > 0, f"data.mixture.{key} is {value}; use 1 or more, or null.")


@dataclass
class QualityConfig:
    """What is left out of the data; each record left out is listed with its reason in bad_rows.jsonl."""

    duplicates: bool = False  # records whose words came before, case and spaces aside
    near_duplicates: float = 0.0  # Jaccard similarity of word 5-grams from which a record counts as one; 0: off
    common_prefix: int = 0  # a prompt that begins with so many characters of an earlier one goes; 0: off
    min_response_words: int = 0  # of every response; 0: off
    max_response_words: int | None = None  # of every response; null: off
    languages: list[str] = field(default_factory=list)  # ISO 639-1 codes; texts under 20 letters stay; []: all
    contamination_words: int = 0  # in a row that no training record shares with a held-out prompt (GPT-3: 13); 0: off
    max_prompts_per_user: int = 0  # as InstructGPT's 200; 0: off
    pii: bool = False  # leave out records with e-mail or public IP addresses, phone, card or social security numbers

    def __post_init__(self) -> None:
        require_fraction("data.quality", near_duplicates=self.near_duplicates)
        for key in ("common_prefix", "min_response_words", "contamination_words", "max_prompts_per_user"):
            value = getattr(self, key)
            require(value >= 0, f"data.quality.{key} is {value}; use 0 (off) or more.")
        require(
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
    source: DataSourceName = DataSourceName.sandbox  # the format; data=NAME and data=FILE set it
    path: str | None = None  # file, folder or hub id; the sandbox needs none
    prompts_path: str | None = None  # another file of the same source for PPO's prompts; None: the same rows
    subset: str | None = None  # of a hub dataset, where it has several
    split: str = "train"  # of a hub dataset
    streaming: bool = False  # a hub dataset is read as it arrives, as far as data.max_rows, and not downloaded whole
    columns: dict[str, str] = field(default_factory=dict)  # what your file calls them: data.columns.prompt=question
    ignore: list[str] = field(default_factory=list)  # columns of your file that mean nothing, though they sound like it
    phrasings: str | None = None  # data=phrasings: the YAML file of templates, or builtin
    template: Template = Template.auto  # how a conversation is put into tokens
    max_prompt_tokens: int = 512  # a longer prompt is dealt with by long_prompts
    long_prompts: LongPrompts = LongPrompts.refuse  # what becomes of those over max_prompt_tokens
    max_response_tokens: int = 512  # a longer response is cut there, without an end token
    evaluation_fraction: float = 0.1  # rows held out by a hash of the prompt, 1: all; the sandbox holds out its own
    split_by_user: bool = False  # hold out users and all they wrote, not prompts; rows need a user
    max_rows: int | None = None  # keep the first N rows; None: all
    on_bad_row: OnBadRow = OnBadRow.refuse  # a row that cannot be used stops the stage, or is left out
    workers: int | None = None  # processes that tokenize; None: one a core
    cache: str | None = None  # folder of read and tokenized data; None: ~/.cache/rlhf, or under $XDG_CACHE_HOME
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)

    def __post_init__(self) -> None:
        require_positive("data", max_prompt_tokens=self.max_prompt_tokens, max_response_tokens=self.max_response_tokens)
        require(
            0 < self.evaluation_fraction <= 1,
            f"data.evaluation_fraction is {self.evaluation_fraction}; use a fraction above 0, up to 1, which leaves "
            "nothing to train on.",
        )
        require(
            self.max_rows is None or self.max_rows > 0, f"data.max_rows is {self.max_rows}; use 1 or more, or null."
        )
        require(
            self.path is not None or self.source == DataSourceName.sandbox,
            f"data={self.source.value} needs a file; set data.path=FILE.",
        )
        require(
            (self.phrasings is not None) == (self.source == DataSourceName.phrasings),
            "data=phrasings and data.phrasings=FILE, the templates, belong together; set both or neither.",
        )
        require(
            not self.columns or self.source == DataSourceName.jsonl,
            f"data.columns names the columns of a file of your own; with data={self.source.value} leave it out, or use "
            "data=jsonl.",
        )
        for name in self.columns:
            require(
                name in _COLUMNS, f"data.columns.{name} names nothing that is read; use one of {', '.join(_COLUMNS)}."
            )
        require(
            self.workers is None or self.workers > 0,
            f"data.workers is {self.workers}; use 1 or more, or null.",
        )
