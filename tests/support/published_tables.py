"""Tables of samples in the form of InstructGPT's, made up: the same texts for every group, or a text for each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

TEXTS = ["the cat sat on the mat today", "None", "NA", "a dog ran\nacross the wide street", "nothing here is right"]
REFERENCES = ["the cat sat on the mat", "None", "NA", "a dog ran across the wide street", "something else entirely"]


def table(path: Path, groups: dict[str, list[str]], texts: Sequence[str] = TEXTS) -> Path:
    """Every combination of the groups' values, with the same texts."""
    rows: list[dict[str, str]] = [{}]
    for name, values in groups.items():
        rows = [{**row, name: value} for row in rows for value in values]
    return write(
        path,
        [
            {**row, "context": f"p{i}", "ref_text": REFERENCES[i], "sample": text}
            for row in rows
            for i, text in enumerate(texts)
        ],
    )


def write(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """As InstructGPT's files are written: an unnamed index first, and quotation marks where they must be."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["", *rows[0]])
        writer.writeheader()
        writer.writerows({"": i, **row} for i, row in enumerate(rows))
    return path


def of_models(path: Path, samples: dict[str, Sequence[str]], references: Sequence[str], prompt_type: str = "") -> Path:
    """samples: by model_type, one for each reference."""
    kind = {"prompt_type": prompt_type} if prompt_type else {}
    return write(
        path,
        [
            {"model_type": model, **kind, "context": f"p{i}", "ref_text": references[i], "sample": sample}
            for model, texts in samples.items()
            for i, sample in enumerate(texts)
        ],
    )
