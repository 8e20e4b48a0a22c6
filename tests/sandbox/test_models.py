"""The base model that ships: small, safe to load, trained on the corpus of this version."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.config import SandboxConfig
from rlhf.data.records import Split
from rlhf.models import resolve_model_path
from rlhf.pretraining import PackedTexts
from rlhf.sandbox.source import SandboxSource

SHIPPED = ("m",)  # s and l are made by `make base-models`, and do not ship yet
FOLDERS = {size: Path(resolve_model_path(f"builtin:sandbox-{size}")) for size in SHIPPED}


def test_they_are_under_12_megabytes_together() -> None:
    files = [file for folder in FOLDERS.values() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 12e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja"}


def test_they_know_the_corpus() -> None:
    texts = SandboxSource(SandboxConfig(), seed=0).texts(Split.evaluation)[:150]
    for size, folder in FOLDERS.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        blocks = PackedTexts(texts, AutoTokenizer.from_pretrained(folder), 128, "length").blocks
        with torch.no_grad():
            loss = float(model(input_ids=blocks, labels=blocks).loss)
        assert loss < 1.0, size  # 6.9 before training; a good part of the text is chance
