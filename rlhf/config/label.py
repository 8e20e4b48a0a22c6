"""label.*: the page on which people judge."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config.checks import require


@dataclass
class LabelConfig:
    host: str = "127.0.0.1"  # the address it listens on; 0.0.0.0 lets other machines in, with the token
    port: int = 7860  # 0: any that is free

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"label.port is {self.port}; use 1 to 65535, or 0 (any that is free).")
