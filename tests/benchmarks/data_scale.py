"""A million rows: rows a second and peak memory, ours beside `datasets` alone, on synthetic instructions.

    python tests/benchmarks/data_scale.py [--rows 1000000] [--folder /tmp/data-scale] [--out FILE.json]

Each part runs in a process of its own, with nothing cached but what the part before it left: reading into records,
tokenizing for SFT, and both again; and `datasets`' load_dataset("json") with a map that calls the same tokenizer on the
same text, without checks, splits, masks or refusals. Memory is the most that the part's processes held together, every
0.1 s: `all` is their proportional set size, memory-mapped pages among it, `own` what is theirs alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MODEL = "builtin:sandbox-m"
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he")


def write_rows(path: Path, count: int) -> None:
    """Rows of 20 to 60 words of instruction and 20 to 140 of output, numbers among them so that no two are alike."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            words = rng.choices(WORDS, k=rng.randint(40, 200))
            cut = rng.randint(20, min(60, len(words) - 20))
            row = {"instruction": f"{number} {' '.join(words[:cut])}", "output": " ".join(words[cut:])}
            file.write(json.dumps(row) + "\n")


def part(name: str, path: Path, cache: Path) -> int:
    """One part, in this process; the rows it made."""
    from rlhf.cli.quiet import quiet_libraries
    from rlhf.config import Config, DataConfig, DataSourceName, OnBadRow, TrackerConfig
    from rlhf.data.records import Split
    from rlhf.data.templates import ChatTemplate
    from rlhf.models.tokenizers import load_tokenizer

    config = DataConfig(source=DataSourceName.alpaca, path=str(path), cache=str(cache), evaluation_fraction=0.001)
    quiet_libraries(Config(data=config, tracker=TrackerConfig(progress=False)))
    if name == "datasets":
        return _datasets_alone(path, cache)
    from rlhf.chain.source import load_source

    source = load_source(config, 0)
    demonstrations = source.demonstrations(Split.train)
    if name == "read":
        return len(demonstrations)
    from rlhf.data.bad_rows import BadRows
    from rlhf.data.encoding import Encoder

    template = ChatTemplate(load_tokenizer(MODEL))
    return len(Encoder(template, config, BadRows(OnBadRow.refuse, None)).demonstrations(demonstrations))


def _datasets_alone(path: Path, cache: Path) -> int:
    import datasets

    from rlhf.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(MODEL)
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache / "datasets"))

    def tokenize(batch: dict[str, list[str]]) -> dict[str, Any]:
        pairs = zip(batch["instruction"], batch["output"], strict=True)
        return {"input_ids": tokenizer([f"User: {asked}\nAssistant: {told}" for asked, told in pairs]).input_ids}

    workers = len(os.sched_getaffinity(0))
    return len(rows.map(tokenize, batched=True, num_proc=workers, remove_columns=rows.column_names))


def measured(name: str, path: Path, cache: Path) -> dict[str, float]:
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, __file__, "--part", name, "--folder", str(path.parent)], text=True)
    everything = own = 0
    while process.poll() is None:
        held = [_memory(pid) for pid in _tree(process.pid)]
        everything = max(everything, sum(pss for pss, _ in held))
        own = max(own, sum(anonymous for _, anonymous in held))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{name} failed with {process.returncode}")
    return {"seconds": round(time.monotonic() - started, 1), "all_gb": everything / 1e6, "own_gb": own / 1e6}


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Kilobytes: proportional set size, and the anonymous part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return values["Pss"], values["Pss_Anon"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/data-scale"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=["read", "tokenize", "datasets"])
    arguments = parser.parse_args()
    path, cache = arguments.folder / "rows.jsonl", arguments.folder / "cache"
    if arguments.part:
        print(f"{arguments.part}: {part(arguments.part, path, cache):,} rows", flush=True)
        return
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    write_rows(path, arguments.rows)
    report: dict[str, Any] = {"rows": arguments.rows, "megabytes": round(path.stat().st_size / 1e6)}
    for label, name in (
        ("read", "read"),
        ("tokenize", "tokenize"),
        ("both again", "tokenize"),
        ("datasets alone", "datasets"),
    ):
        report[label] = measured(name, path, cache)
        print(label, report[label], flush=True)
    for label in ("read", "tokenize", "datasets alone"):
        report[label]["rows_per_second"] = round(arguments.rows / report[label]["seconds"])
    print(json.dumps(report))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
