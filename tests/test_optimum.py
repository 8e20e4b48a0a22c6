"""PPO, run as a user runs it, ends at the best policy that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.benchmarks import optimum


@pytest.mark.slow
def test_ppo_reaches_the_known_optimum_at_a_middle_coefficient(tmp_path: Path) -> None:
    results = optimum.run(tmp_path / "work", [optimum.MIDDLE])
    (row,) = results.rows
    assert results.max_relative_error < 0.05
    assert row.total_variation < 0.1
    assert row.objective_share > 0.98


def test_every_response_is_there_once() -> None:
    every = [tuple(response) for response in optimum.responses()]
    assert len(every) == len(set(every)) == 1 + 15 + 15**2 + 15**3
    assert len({optimum.text(response) for response in every}) == len(every)


def test_the_best_policy_cannot_be_improved_on() -> None:
    """Its objective is beta log Z, and any other distribution's is less by beta times its KL from the best one."""
    generator = torch.Generator().manual_seed(0)
    reference, other = (torch.randn(2, 50, generator=generator).double().log_softmax(-1) for _ in range(2))
    rewards = torch.randn(2, 50, generator=generator).double()
    for beta in optimum.BETAS:
        exact = optimum.best(reference, rewards, beta)
        shift = float((reference.exp() * rewards).sum(-1).mean())
        gain, kl = optimum.gain_and_kl(exact, reference, rewards)
        log_z = (reference + rewards / beta).logsumexp(-1).mean()
        assert gain + shift - beta * kl == pytest.approx(beta * float(log_z))
        gain, kl = optimum.gain_and_kl(other, reference, rewards)
        missing = (other.exp() * (other - exact)).sum(-1).mean()
        assert gain + shift - beta * kl == pytest.approx(beta * float(log_z - missing))


def test_the_reference_has_no_gain_and_no_kl_and_the_best_policy_no_error() -> None:
    reference = torch.randn(2, 50, generator=torch.Generator().manual_seed(1)).double().log_softmax(-1)
    rewards = torch.randn(2, 50, generator=torch.Generator().manual_seed(2)).double()
    start = optimum.measure(reference, reference, rewards, 0.5, 0.0)
    assert (start.gain, start.kl, start.gain_error, start.kl_error) == (0, 0, 1, 1)
    end = optimum.measure(optimum.best(reference, rewards, 0.5), reference, rewards, 0.5, 0.0)
    assert (end.gain_error, end.kl_error, end.total_variation, end.objective_share) == (0, 0, 0, 1)
