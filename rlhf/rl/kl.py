"""KL from the reference: estimators from samples of the policy, and the controller of the penalty's weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log policy - log reference at each token: unbiased for KL(policy || reference), of either sign, in nats.

    Any one shape, float32. Never clamped: clamping at 0 would bias it upwards.
    """
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio at each token: biased for KL(policy || reference), never negative, in nats.

    Any one shape, float32. Schulman, "Approximating KL divergence" (2020), estimator k2.
    """
    return _k2(ref_logprobs - logprobs)


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """r - 1 - log r with r = reference / policy at each token: unbiased, never negative, less variance, in nats.

    Any one shape, float32. Schulman, "Approximating KL divergence" (2020), estimator k3.
    """
    return _k3(ref_logprobs - logprobs)


def _k2(log_ratio: Tensor) -> Tensor:
    return 0.5 * log_ratio.square()


def _k3(log_ratio: Tensor) -> Tensor:
    return log_ratio.expm1() - log_ratio


# Nats a token beyond which a penalty's log-ratio does not grow: r = exp(log-ratio) of a single token that the policy
# has all but lost is 1e13 at 30 nats, and would decide the whole batch.
MOST_LOG_RATIO = 10.0


def _within(estimate: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logprobs, ref_logprobs: estimate((ref_logprobs - logprobs).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO))


# As penalties, in the reward or in the loss. k1 grows with the log-ratio alone and is what it is.
ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": _within(_k2), "k3": _within(_k3)}


def masked_sums(per_token: Tensor, mask: Tensor) -> Tensor:
    """Sum over the tokens where mask is True, of each response: (batch, response) -> (batch,)."""
    return per_token.where(mask, 0.0).sum(-1)


@dataclass
class KLController:
    """The KL penalty's weight: fixed when `target` is None, else steered to it (Ziegler et al., arXiv:1909.08593, 2.2).

    The paper gives e = clip((KL - target) / target, -0.2, 0.2) and coef <- coef (1 + K e); its code takes
    K = episodes / horizon, and so does this.
    """

    coef: float  # reward per nat
    target: float | None = None  # nats a response
    horizon: int = 10000  # episodes

    def update(self, kl: float, *, episodes: int) -> None:
        """Move the coefficient after `episodes` responses whose mean KL was `kl` nats."""
        if self.target is None:
            return
        error = min(max((kl - self.target) / self.target, -0.2), 0.2)
        self.coef *= 1 + error * episodes / self.horizon

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coef = state["coef"]
