"""Mean and spread of all numbers seen so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class RunningMoments:
    """Count, mean and sum of squared deviations of a stream, batch by batch (Chan, Golub and LeVeque 1979).

    Python floats, float64, so that a checkpoint's JSON gives back the same bits.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of (x - mean) squared

    def update(self, x: Tensor) -> None:
        """Take in every entry of x, any shape, any float dtype."""
        new = x.detach().double().flatten()
        mean, squares = float(new.mean()), float((new - new.mean()).square().sum())
        total = self.count + len(new)
        difference = mean - self.mean
        self.squares += squares + difference**2 * self.count * len(new) / total
        self.mean += difference * len(new) / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation of all entries, dividing by their number; 1 where they do not vary."""
        std = math.sqrt(self.squares / self.count) if self.count else 0.0
        return std if std > 0 else 1.0

    def state_dict(self) -> dict[str, float]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.count, self.mean, self.squares = int(state["count"]), state["mean"], state["squares"]
