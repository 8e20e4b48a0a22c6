"""The C library's allocator, told to keep what it has been given back."""

from __future__ import annotations

import ctypes
import platform

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_TRIM_THRESHOLD = 2**31 - 1
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more


def keep_freed_memory() -> bool:
    """Let freed memory stay with the process; whether this could be asked for, which is so under glibc alone.

    Sampling and training free and ask for the same tens of megabytes at every step. By default glibc hands much of them
    back to the kernel, which clears every page again when it is next touched.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    # Both, for setting either one stops glibc from adapting the other, and the mmap threshold then stays at 128 KiB.
    return bool(
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        and library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
    )
