"""What the chain would take of each GPU's memory, whether it fits, and what to change. Runs nothing."""

from __future__ import annotations

from rlhf import plan
from rlhf.config import Config


def run(config: Config) -> None:
    """Prints the table."""
    print(plan.table(config))
