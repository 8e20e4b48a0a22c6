"""How a process that belongs to a group ends."""

from __future__ import annotations

import subprocess
import sys

from tests.support.ranks import ROOT

ENDING = """
import atexit, sys
from rlhf.runtime import distributed
from rlhf.config import Device

class Late:
    def __del__(self):
        print("taken down")

late = Late()
distributed.join(Device.cpu, alone=True)
atexit.register(lambda: print("handler,", end=" "))
print("written,", end=" ")
if "done" in sys.argv:
    distributed.done()
"""


def ending(*words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING, *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    # gloo of torch 2.8 to 2.10 prints a line of its own.
    return "".join(line for line in ended.stdout.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def test_a_process_that_is_done_ends_without_pythons_taking_down() -> None:
    """What was printed comes out and exit handlers run; nothing is taken down under gloo's threads."""
    assert ending("done") == "written, handler, "
    assert ending() == "written, handler, taken down\n"
