"""What a setting's value is checked with: ValueError with one sentence."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def require_positive(node: str, **values: float) -> None:
    for key, value in values.items():
        require(value > 0, f"{node}.{key} is {value}; it must be above 0.")


def require_fraction(node: str, *, open_above: bool = False, **values: float) -> None:
    for key, value in values.items():
        ok = 0 <= value < 1 if open_above else 0 <= value <= 1
        bounds = "0 or more and below 1" if open_above else "between 0 and 1"
        require(ok, f"{node}.{key} is {value}; it must be {bounds}.")


def divisors_near(total: int, wanted: int) -> str:
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    below = max(n for n in divisors if n <= wanted)
    above = min((n for n in divisors if n >= wanted), default=total)
    return f"{below} or {above}"
