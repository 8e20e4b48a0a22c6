"""judge.*: who says which response is better."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_positive
from rlhf.config.choices import JudgeName


@dataclass
class LLMJudgeConfig:
    """A model behind an OpenAI-compatible server, which may need a key: OPENAI_API_KEY in the environment."""

    url: str | None = None  # up to and with /v1, such as http://localhost:8000/v1; null: none
    model: str | None = None  # what the server calls the model
    chat: bool = True  # ask /chat/completions; false asks /completions, for a model that is served no other way
    prompt: str | None = None  # a file with {prompt}, {response_a} and {response_b} in it; null: the built-in words
    temperature: float | None = 0.0  # 0: its likeliest answer; null sends none, where a server takes only its own
    max_tokens: int = 512  # of one answer, at most; an answer that is cut there gives no verdict
    limit_name: str = "max_tokens"  # what the server calls it; OpenAI's reasoning models: max_completion_tokens
    parallel: int = 8  # requests under way at a time
    requests_per_minute: float = 0.0  # at most, retries among them, evenly spaced; 0: no limit
    timeout_s: float = 120.0  # wait this long for one answer
    retries: int = 6  # after the first try, with growing pauses; for 408, 429, 5xx and no answer. 0: none
    input_price: float = 0.0  # dollars per million tokens that it reads; 0 with output_price=0: cost unknown
    output_price: float = 0.0  # dollars per million tokens that it writes
    cache: str | None = None  # folder of answers, asked for once; null: llm_judge/ in ~/.cache/rlhf or $XDG_CACHE_HOME

    def __post_init__(self) -> None:
        require_positive("judge.llm", max_tokens=self.max_tokens, parallel=self.parallel, timeout_s=self.timeout_s)
        for key in ("requests_per_minute", "retries", "input_price", "output_price"):
            value = getattr(self, key)
            require(0 <= value < float("inf"), f"judge.llm.{key} is {value}; use 0 or more.")
        require(
            self.url is None or self.url.startswith(("http://", "https://")),
            f"judge.llm.url is {self.url!r}; it starts with http:// or https://, such as http://localhost:8000/v1.",
        )
        require(
            (self.url is None) == (self.model is None),
            "judge.llm needs both: set judge.llm.url=URL and judge.llm.model=NAME.",
        )
        require(
            self.temperature is None or 0 <= self.temperature < float("inf"),
            f"judge.llm.temperature is {self.temperature}; use 0 (its likeliest answer) or more, or null (not sent).",
        )
        require(
            self.limit_name in ("max_tokens", "max_completion_tokens"),
            f"judge.llm.limit_name is {self.limit_name!r}; use max_tokens or max_completion_tokens.",
        )


@dataclass
class JudgeConfig:
    names: list[JudgeName] = field(default_factory=list)  # empty: the reward model, and gold where the data has it
    reward_model: str | None = None  # what the reward_model judge scores with; None: this run's reward model
    tie_margin: float = 0.0  # scores closer than this are a tie, in the judge's own unit
    llm: LLMJudgeConfig = field(default_factory=LLMJudgeConfig)  # who the llm judge is

    def __post_init__(self) -> None:
        require(self.tie_margin >= 0, f"judge.tie_margin is {self.tie_margin}; use 0 or more.")
        require(
            JudgeName.llm not in self.names or self.llm.url is not None,
            "judge.names holds llm, and no server is named; set judge.llm.url=URL, up to and with /v1, and "
            "judge.llm.model=NAME.",
        )
        require(
            JudgeName.llm in self.names or self.llm.url is None,
            f"judge.llm.url={self.llm.url} names a judge that is not asked; add llm to judge.names, such as "
            "judge.names=[gold,llm], or leave it out.",
        )
