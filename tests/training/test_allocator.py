from __future__ import annotations

import ctypes
import platform

import pytest

from rlhf.training.allocator import keep_freed_memory


class FakeLibrary:
    """Takes every setting, as glibc does, but a threshold over its limit."""

    def __init__(self) -> None:
        self.settings: dict[int, int] = {}

    def mallopt(self, key: int, value: int) -> int:
        if key == -3 and value > 32 * 2**20:
            return 0
        self.settings[key] = value
        return 1


def test_both_thresholds_are_set_as_setting_one_alone_freezes_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert keep_freed_memory()
    assert library.settings == {-3: 32 * 2**20, -1: 2**31 - 1}


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_this_machines_glibc_takes_the_settings() -> None:
    assert keep_freed_memory()
