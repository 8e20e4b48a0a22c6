"""The first signal is a wish that training grants after its step; one that comes later ends it at once."""

from __future__ import annotations

import os
import signal

import pytest

from rlhf.training import stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_and_a_later_one_an_interrupt(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(number)
    with stopping.between_steps():
        assert not stopping.asked()
        os.kill(os.getpid(), number)
        assert stopping.asked()
        os.kill(os.getpid(), number)  # the same wish, passed on by a launcher
        assert stopping.asked()
        monkeypatch.setattr(stopping, "SAME_WISH_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_wish_of_one_stage_is_not_one_of_the_next() -> None:
    with stopping.between_steps():
        os.kill(os.getpid(), signal.SIGINT)
    with stopping.between_steps():
        assert not stopping.asked()
