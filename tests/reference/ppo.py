"""PPO's equations again, from the papers: Python floats (float64), lists of unpadded rows, one loop at a time."""

from __future__ import annotations

import math

Row = list[float]


def logprob(logits: Row, token: int, temperature: float) -> float:
    scaled = [x / temperature for x in logits]
    top = max(scaled)
    return scaled[token] - top - math.log(sum(math.exp(x - top) for x in scaled))


def entropy(logits: Row, temperature: float) -> float:
    logprobs = [logprob(logits, token, temperature) for token in range(len(logits))]
    return -sum(math.exp(x) * x for x in logprobs)


def k3(policy: float, reference: float) -> float:
    ratio = math.exp(reference) / math.exp(policy)
    return (ratio - 1) - math.log(ratio)


def k2(policy: float, reference: float) -> float:
    return (reference - policy) ** 2 / 2


def kl_estimate(estimator: str, policy: float, reference: float) -> float:
    return {"k1": policy - reference, "k2": k2(policy, reference), "k3": k3(policy, reference)}[estimator]


def kl(policy: Row, reference: Row) -> float:
    """KL(policy || reference) of two distributions, given as probabilities."""
    return sum(p * math.log(p / q) for p, q in zip(policy, reference, strict=True))


def kl_gradient(policy: Row, reference: Row) -> Row:
    """Of KL(policy || reference), by the policy's logits: d KL / d logit_i = p_i (log(p_i / q_i) - KL)."""
    return [p * (math.log(p / q) - kl(policy, reference)) for p, q in zip(policy, reference, strict=True)]


def reverse_kl_gradient(policy: Row, reference: Row) -> Row:
    """Of KL(reference || policy), by the policy's logits: p_i - q_i."""
    return [p - q for p, q in zip(policy, reference, strict=True)]


def kl_loss(estimator: str, new: list[Row], old: list[Row], ref: list[Row]) -> float:
    """Mean over all tokens of the estimate, each weighed by how much likelier the policy now makes its token."""
    terms = [
        math.exp(n) / math.exp(o) * kl_estimate(estimator, n, r)
        for rows in zip(new, old, ref, strict=True)
        for n, o, r in zip(*rows, strict=True)
    ]
    return sum(terms) / len(terms)


def length_penalty(length: int, penalty: float, free: int) -> float:
    return sum(penalty for token in range(length) if token >= free)


def running_std(batches: list[Row]) -> float:
    """Standard deviation of every number of every batch, all kept."""
    everything = [x for batch in batches for x in batch]
    mean = sum(everything) / len(everything)
    return math.sqrt(sum((x - mean) ** 2 for x in everything) / len(everything))


def rewards(score: float, logprobs: Row, ref_logprobs: Row, kl_coef: float, estimator: str = "k1") -> Row:
    """arXiv:2203.02155, eq. 2: r(x, y) - beta log(pi / pi_SFT), the log-ratio spread over its tokens."""
    out = []
    for t in range(len(logprobs)):
        reward = -kl_coef * kl_estimate(estimator, logprobs[t], ref_logprobs[t])
        if t == len(logprobs) - 1:
            reward += score
        out.append(reward)
    return out


def advantages(rewards: Row, values: Row, gamma: float, gae_lambda: float) -> Row:
    """arXiv:1506.02438, eq. 16: A_t = sum over l of (gamma lambda)^l delta_{t+l}, as the double sum it is."""
    steps = len(rewards)

    def delta(t: int) -> float:
        after = values[t + 1] if t + 1 < steps else 0.0
        return rewards[t] + gamma * after - values[t]

    return [sum((gamma * gae_lambda) ** l * delta(t + l) for l in range(steps - t)) for t in range(steps)]  # noqa: E741


def leave_one_out(rewards: Row) -> Row:
    """arXiv:2402.14740: R(y_i) - 1 / (k - 1) * sum over j != i of R(y_j), for the k responses to one prompt."""
    out = []
    for i, reward in enumerate(rewards):
        others = [r for j, r in enumerate(rewards) if j != i]
        out.append(reward - sum(others) / len(others))
    return out


def group_normalised(rewards: Row) -> Row:
    """arXiv:2402.03300, section 4.1.2: (r_i - mean(r)) / std(r), for the responses to one prompt."""
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (std + 1e-4) for r in rewards]


def whitened(rows: list[Row], shift_mean: bool) -> list[Row]:
    flat = [x for row in rows for x in row]
    mean = sum(flat) / len(flat)
    std = math.sqrt(sum((x - mean) ** 2 for x in flat) / len(flat) + 1e-8)
    return [[(x - mean) / std + (0.0 if shift_mean else mean) for x in row] for row in rows]


def policy_loss(
    new: list[Row],
    old: list[Row],
    advantages: list[Row],
    clip_range: float,
    dual_clip: float = 0.0,
    corrections: list[Row] | None = None,
    by_sequence: bool = False,
) -> tuple[float, float]:
    """arXiv:1707.06347, eq. 7, averaged over all tokens, negated; and the share where a clip decides.

    dual_clip: c of arXiv:1912.09729, max(min(...), c A) where A < 0.  corrections: a factor for each token's loss.
    by_sequence: the mean over rows of each row's mean (arXiv:2402.03300, eq. 3) in place of that over tokens.
    """
    losses: list[Row] = []
    clipped = 0
    for i, (new_row, old_row, advantage_row) in enumerate(zip(new, old, advantages, strict=True)):
        losses.append([])
        for t, (n, o, advantage) in enumerate(zip(new_row, old_row, advantage_row, strict=True)):
            ratio = math.exp(n) / math.exp(o)
            bounded = min(max(ratio, 1 - clip_range), 1 + clip_range)
            surrogate = min(ratio * advantage, bounded * advantage)
            decided = bounded * advantage < ratio * advantage
            if dual_clip > 0 and advantage < 0 and surrogate < dual_clip * advantage:
                surrogate, decided = dual_clip * advantage, True
            clipped += decided
            losses[-1].append(-surrogate * (corrections[i][t] if corrections is not None else 1.0))
    count = sum(len(row) for row in losses)
    if by_sequence:
        return sum(sum(row) / len(row) for row in losses) / len(losses), clipped / count
    return sum(sum(row) for row in losses) / count, clipped / count


def truncated_ratio(policy: float, sampler: float, cap: float) -> float:
    return min(math.exp(policy) / math.exp(sampler), cap)


def value_loss(values: list[Row], old: list[Row], returns: list[Row], clip_range: float) -> float:
    total, count = 0.0, 0
    for value_row, old_row, return_row in zip(values, old, returns, strict=True):
        for value, before, target in zip(value_row, old_row, return_row, strict=True):
            errors = [(value - target) ** 2]
            if clip_range > 0:
                bounded = min(max(value, before - clip_range), before + clip_range)
                errors.append((bounded - target) ** 2)
            total += 0.5 * max(errors)
            count += 1
    return total / count


def explained_variance(values: Row, returns: Row) -> float:
    def variance(xs: Row) -> float:
        mean = sum(xs) / len(xs)
        return sum((x - mean) ** 2 for x in xs) / len(xs)

    return 1 - variance([r - v for r, v in zip(returns, values, strict=True)]) / variance(returns)
