"""Text of files and models as a terminal may show it: what could move its cursor or change it is spelled out."""

from __future__ import annotations

import logging


def printable(text: str) -> str:
    """The text with every control character, but for line ends and tabs, as its escape: \\x1b for the escape itself."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


class PrintableFormatter(logging.Formatter):
    """A log's lines, printable: names of models, files and columns are other people's words."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
