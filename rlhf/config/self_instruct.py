"""self_instruct.*: growing instruction data with a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_fraction, require_positive


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
        require_positive("self_instruct.server", parallel=self.parallel, timeout_s=self.timeout_s)
        require(self.retries >= 0, f"self_instruct.server.retries is {self.retries}; use 0 (none) or more.")
        require(
            self.url is None or self.url.startswith(("http://", "https://")),
            f"self_instruct.server.url is {self.url!r}; it starts with http:// or https://, such as "
            "http://localhost:8000/v1.",
        )
        require(
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
    max_words: int = 150  # of an instruction
    keywords: list[str] = field(  # an instruction with one of these words is dropped: a model of text cannot do it
        default_factory=lambda: [
            *("image", "images", "picture", "pictures", "graph", "graphs", "plot", "draw", "map", "maps"),
            *("file", "files", "video", "videos", "audio", "go to"),
        ]
    )
    patience: int = 5  # rounds in a row that may keep no instruction before the stage gives up

    def __post_init__(self) -> None:
        require_positive(
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
        require_fraction("self_instruct", max_similarity=self.max_similarity)
        for key in ("generated_examples", "instance_examples"):
            value = getattr(self, key)
            require(value >= 0, f"self_instruct.{key} is {value}; use 0 (none) or more.")
        require(
            self.max_words >= self.min_words,
            f"self_instruct.max_words is {self.max_words}; use self_instruct.min_words={self.min_words} or more.",
        )
        require(
            self.model is None or self.server.url is None,
            f"self_instruct.model={self.model} and self_instruct.server.url={self.server.url} name two writers; "
            "leave one out.",
        )
