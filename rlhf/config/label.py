"""label.*: the page on which people judge."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config.checks import require, require_positive

MOST_RESPONSES = 9  # InstructGPT's labelers ranked 4 to 9 at once; a place is one digit


@dataclass
class LabelConfig:
    responses: str | None = None  # a file of prompts, each with its responses; None: the run's compare/responses.jsonl
    prompts: int | None = None  # judged at most, drawn by the seed; None: all
    max_responses: int = MOST_RESPONSES  # shown of a prompt; where there are more, the seed draws among them
    overlap: int | None = None  # labelers who judge each prompt; None: everybody judges all
    host: str = "127.0.0.1"  # the address it listens on; 0.0.0.0 lets other machines in, with the token
    port: int = 7860  # 0: any that is free
    open_browser: bool = True  # where there is a screen
    export: bool = False  # writes rankings.jsonl and verdicts.jsonl of the judgements there are, and opens no page

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"label.port is {self.port}; use 1 to 65535, or 0 (any that is free).")
        require(
            2 <= self.max_responses <= MOST_RESPONSES,
            f"label.max_responses is {self.max_responses}; use 2 to {MOST_RESPONSES}.",
        )
        for key in ("prompts", "overlap"):
            if (value := getattr(self, key)) is not None:
                require_positive("label", **{key: value})
