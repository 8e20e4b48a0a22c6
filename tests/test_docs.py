"""The README and the pages of docs/ are true: links lead somewhere, commands compose, keys exist."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.cli import compose, main
from rlhf.config.keys import all_keys, all_nodes, mappings
from rlhf.evaluation.judges.judge import Judge
from rlhf.ppo.engines.engine import RolloutEngine

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / page for page in ("README.md", "CONTRIBUTING.md", "launch/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILES = (".py", ".json", ".jsonl", ".yaml", ".html", ".md", ".txt")
# Words that stand for a person's own: composing them needs no such file.
OWN = {"PATH": "./path", "FILE": "./file", "NAME": "name", "FOLDER": "./folder"}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """What GitHub and MkDocs call the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


def test_the_readme_fits_one_reading() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


def commands(page: Path) -> list[str]:
    """Every `python -m rlhf ...` of a page, indented or in a sentence, made one line; shell variables are left out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    lines += [" ".join(found.split()) for found in re.findall(r"`(python -m rlhf [^`]+)`", text)]
    found = [line.partition("  #")[0].strip() for line in lines if line.startswith("python -m rlhf")]
    return [line for line in found if "..." not in line and "$" not in line]


COMMANDS = [(page, command) for page in PAGES for command in commands(page)]


def test_the_readme_shows_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 12


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{name(page)}: {line[:60]}" for page, line in COMMANDS])
def test_commands_compose(page: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [re.sub("|".join(OWN), lambda found: OWN[found[0]], word) for word in shlex.split(command)[3:]]
    if not words or words[0].startswith("--") or any(word.startswith("hydra/launcher=submitit") for word in words):
        return
    monkeypatch.chdir(tmp_path)
    for file in ("my.jsonl", "my_rankings.jsonl"):
        (tmp_path / file).write_text("{}\n")
    words = [compose.normalise(word) if not word.startswith("-") else word for word in compose.with_data_path(words)]
    words = compose.debug_last(compose.with_model_group(words))
    words.sort(key=lambda word: word not in ("-m", "--multirun"))
    assert compose.expand(main._parse(words))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_keys_that_are_named_exist(page: Path) -> None:
    tops = {node for node in all_nodes() if "." not in node}
    known = {*all_keys(), *all_nodes()}
    for word in re.findall(r"`([a-z_]+(?:\.[a-z_0-9*]+)+)(?:=[^`]*)?`", page.read_text(encoding="utf-8")):
        if word.partition(".")[0] not in tops or word.endswith(
            (".py", ".json", ".jsonl", ".yaml", ".html", ".md", ".txt")
        ):
            continue
        node = word.removesuffix(".*")
        assert node in known or node.rpartition(".")[0] in mappings(), f"{word} is no key"


def test_the_table_of_keys_is_the_schema() -> None:
    import importlib.util

    path = ROOT / "docs" / "_hooks" / "keys.py"
    spec = importlib.util.spec_from_file_location("docs_keys", path)
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = (ROOT / "docs" / "reference" / "keys.md").read_text(encoding="utf-8")
    shown = hook.on_page_markdown(page, None)
    assert all(f"| `{key}` |" in shown for key in all_keys())


@functools.cache
def sentences() -> list[str]:
    """Every text in the code, with ~ where a value is filled in."""

    def text(node: ast.AST) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return re.sub(r"%(\.\d)?[sdg]", "~", node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "~" for part in node.values)
        return None

    files = [*(ROOT / "rlhf").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    found = [text(node) for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    return [sentence for sentence in found if sentence]


def refusals() -> list[str]:
    rows = re.findall(
        r"^\| `(.+?)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return [row for row in rows if not row.startswith("#")]


def test_troubleshooting_has_many_refusals() -> None:
    assert len(refusals()) > 60


@pytest.mark.parametrize("refusal", refusals())
def test_refusals_are_the_codes_own_words(refusal: str) -> None:
    parts = [re.escape(part.strip()) for part in refusal.split("...") if part.strip(" .;:,")]
    pattern = re.compile(".*".join(parts))
    assert parts, refusal
    assert any(pattern.search(sentence) for sentence in sentences()), refusal


def test_every_key_says_what_it_means() -> None:
    assert [key.name for key in all_keys().values() if not key.meaning] == []


METRIC = re.compile(
    r"(objective|policy|value|rollout|kl|optim|time|eval|train|data|reward|model|self_instruct)/[a-z_0-9]+"
)


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    explained = re.findall(r"`([a-zA-Z_]+/[a-zA-Z_0-9]+)`", page)
    named = {sentence for sentence in sentences() if METRIC.fullmatch(sentence)}
    assert len(named) > 50
    # What a name begins with, where its end is filled in, is in the set too.
    assert [name for name in sorted(named) if not any(whole.startswith(name) for whole in explained)] == []


def examples() -> list[str]:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run_example(defines: str) -> dict[str, Any]:
    """What the page's example with this name in it defines."""
    [code] = [example for example in examples() if defines in example]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    return names


def test_the_readers_example_reads() -> None:
    [demonstration] = run_example("user_prompt")["read"](
        {"riddle": "What has keys?", "answer": "A piano.", "kind": "thing"}
    )
    assert (demonstration.prompt.task, demonstration.response) == ("thing", "A piano.")


def test_the_judges_example_judges() -> None:
    judge: Judge = run_example("ShortestJudge")["ShortestJudge"]()
    assert judge.score([], ["one two", "one"], []) == [-2, -1]


def test_the_engines_example_has_the_engines_protocol() -> None:
    engine = run_example("PlainEngine")["PlainEngine"]
    for name in ("sync", "generate", "close"):
        own, asked = (inspect.signature(getattr(of, name)).parameters for of in (engine, RolloutEngine))
        assert list(own) == list(asked)


def test_the_advantages_example_is_a_pure_function() -> None:
    advantages = run_example("over_best")["over_best"](torch.tensor([1.0, 3.0, 2.0, 2.0]), 2)
    assert advantages.tolist() == [-2, 0, 0, 0]


def test_the_stages_example_declares_one() -> None:
    stage = run_example("POLISH")["POLISH"]
    assert stage.decides("reward.epochs")
    assert not stage.decides("reward.policy")


def test_the_site_takes_nothing_from_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="the documentation's tools are not installed: pip install -e '.[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        taken = re.findall(r"""(?:src=|<link [^>]*href=)"(https?://[^"]+)""", page.read_text(encoding="utf-8"))
        assert taken == [], page
