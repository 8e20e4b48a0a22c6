"""Randomness as a function of the seed and a place, so that a resumed run draws what an uninterrupted one would."""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, *place: int | str) -> int:
    """A seed of its own for each place: seed_for(config.seed, "rollout", iteration). 56 bits, evenly spread."""
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def permutation(count: int, seed: int) -> list[int]:
    """0 to count - 1 in an order that the seed fixes."""
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


class EndlessOrder:
    """Passes over `count` items, each pass in a fresh order; `take` is a function of where it starts."""

    def __init__(self, count: int, seed: int) -> None:
        assert count > 0, "an endless order needs something to order"
        self.count = count
        self.seed = seed
        self._passes: dict[int, list[int]] = {}

    def take(self, start: int, count: int) -> list[int]:
        """Items `start` to `start + count` of the endless sequence."""
        return [self._order(k // self.count)[k % self.count] for k in range(start, start + count)]

    def _order(self, number: int) -> list[int]:
        if number not in self._passes:
            # Only a pass and its successor are ever in use together.
            self._passes = {n: order for n, order in self._passes.items() if n >= number - 1}
            self._passes[number] = permutation(self.count, seed_for(self.seed, "pass", number))
        return self._passes[number]
