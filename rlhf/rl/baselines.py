"""Advantages of whole responses from other responses to the same prompt, in place of a value model."""

from __future__ import annotations

from torch import Tensor

# Added to a group's standard deviation: a group of equal rewards has nothing to divide by.
GROUP_STD_EPS = 1e-4


def leave_one_out(rewards: Tensor, samples: int) -> Tensor:
    """Each response's reward less the mean of the others' to its prompt (RLOO, arXiv:2402.14740).

    rewards: (batch,) float32, one number a response, `samples` responses to a prompt side by side.
    Returns advantages, (batch,) float32. Raises ValueError if the batch is no whole number of groups of 2 or more.
    """
    groups = _groups(rewards, samples)
    others = (groups.sum(-1, keepdim=True) - groups) / (samples - 1)
    return (groups - others).flatten()


def group_normalised(rewards: Tensor, samples: int) -> Tensor:
    """(reward - mean) / std over the responses to one prompt (GRPO, arXiv:2402.03300, section 4.1.2).

    rewards: (batch,) float32, one number a response, `samples` responses to a prompt side by side.
    The variance divides by samples - 1, as the field's code does (the paper does not say), and 1e-4 is added to the
    standard deviation; a group of equal rewards gives 0.
    Returns advantages, (batch,) float32. Raises ValueError if the batch is no whole number of groups of 2 or more.
    """
    groups = _groups(rewards, samples)
    centred = groups - groups.mean(-1, keepdim=True)
    return (centred / (groups.std(-1, keepdim=True) + GROUP_STD_EPS)).flatten()


def _groups(rewards: Tensor, samples: int) -> Tensor:
    if samples < 2 or len(rewards) % samples:
        raise ValueError(f"{len(rewards)} rewards do not split into groups of {samples}, 2 or more a group")
    return rewards.view(-1, samples)
