"""What the command line says on the terminal."""

from __future__ import annotations

import os
import sys

from rlhf.runtime.distributed import is_main_process
from rlhf.runtime.printable import printable


def print_no_more() -> None:
    """Drops what is printed from now on: who read it, such as head, has had enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """One line to a person, from the first rank alone."""
    if is_main_process():
        print(f"rlhf: {printable(text)}", file=sys.stderr)
