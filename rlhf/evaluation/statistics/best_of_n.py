"""Best-of-n sampling, the baseline that every RL run has to beat: n samples, of which the reward model picks one.

Its numbers for every n come from one set of N samples a prompt, without drawing n at a time.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln


def kl(n: int) -> float:
    """KL(best-of-n || the model sampled from), nats a response: log n - (n - 1) / n.

    Stiennon et al. 2020 (arXiv:2009.01325), appendix G.3. Exact where no two samples have the same score; otherwise an
    upper bound (Beirami et al. 2024, arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n


def powers_of_two(largest: int) -> list[int]:
    """1, 2, 4, ... up to `largest`, itself among them."""
    return sorted({*(2**power for power in range(largest.bit_length())), largest})


def weights(scores: ArrayLike, n: int) -> NDArray[np.float64]:
    """How likely each of N samples is the best of n drawn from them without replacement.

    scores: (prompts, N), higher is better. Samples with equal scores share their chances equally.
    Returns (prompts, N) float64, each row summing to 1. The mean of any value of the samples under these weights is the
    unbiased estimate of its best-of-n mean (Gao et al. 2022, arXiv:2210.10760, appendix I; Nakano et al. 2021). Raises
    ValueError unless 1 <= n <= N.
    """
    array = np.asarray(scores, dtype=np.float64)
    total = array.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"best of {n} needs {n} samples a prompt, and there are {total}.")
    # In ascending order the i-th sample is the best where the n - 1 others come from the i - 1 below it.
    below = np.arange(total)
    chances = np.where(below >= n - 1, np.exp(_log_choose(below, n - 1) - _log_choose(total, n)), 0.0)
    found = np.empty_like(array)
    for row, values in enumerate(array):
        _, places = np.unique(values, return_inverse=True)
        shared = np.bincount(np.sort(places), weights=chances) / np.bincount(places)
        found[row] = shared[places]
    return found


def best_of(scores: ArrayLike, values: ArrayLike, n: int) -> NDArray[np.float64]:
    """The expected value of the best of n by `scores`, a number a prompt: (prompts, N), (prompts, N) -> (prompts,)."""
    return (weights(scores, n) * np.asarray(values, dtype=np.float64)).sum(axis=1)


def _log_choose(total: ArrayLike, chosen: int) -> NDArray[np.float64]:
    pool = np.asarray(total, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.where(
                pool >= chosen,
                gammaln(pool + 1) - gammaln(chosen + 1) - gammaln(np.maximum(pool - chosen, 0) + 1),
                -np.inf,
            )
        )
