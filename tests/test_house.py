"""The house stays as it is drawn: imports run downwards, no circles, one idea a module, no key that nobody reads.

All of it is read from the source itself, without importing any.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the top. A module imports from its own room and from the floors below; rooms on one floor do not know each other.
FLOORS = (
    ("stages",),
    ("rlhf.__main__",),
    ("rlhf.cli",),
    ("rlhf.plan",),
    ("rlhf.chain",),
    ("rlhf.inspection", "rlhf.labeling"),
    ("rlhf.evaluation",),
    ("rlhf.self_instruct",),
    ("rlhf.reward", "rlhf.sft"),
    ("rlhf.ppo",),
    ("rlhf.pretraining",),
    ("rlhf.training",),
    ("rlhf.models",),
    ("rlhf.sandbox",),
    ("rlhf.data",),
    ("rlhf.runtime",),
    ("rlhf.rl",),
    ("rlhf.config",),
    ("rlhf.errors", "rlhf"),
)
# Within evaluation/, from its top.
EVALUATION = (
    ("comparison", "published"),
    ("sweeps",),
    ("tasks",),
    ("answering",),
    ("pages",),
    ("judges",),
    ("statistics",),
)
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 400, 80, 8


def modules() -> dict[str, Path]:
    paths = [*(ROOT / "rlhf").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[str]:
    """Every module of ours that `name` imports, wherever it does: at the top, in a function, for types alone."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield node.module


def floor_of(name: str, floors: tuple[tuple[str, ...], ...]) -> tuple[int, str]:
    """The number of the floor, from the top, and the room in it; the longest name that fits."""
    rooms = [(len(room), i, room) for i, row in enumerate(floors) for room in row if _in_room(name, room)]
    assert rooms, f"{name} stands on no floor; add its package to FLOORS"
    _, number, room = max(rooms)
    return number, room


def _in_room(name: str, room: str) -> bool:
    return name == room or (room != "rlhf" and name.startswith(f"{room}."))


def climbing(floors: tuple[tuple[str, ...], ...], names: dict[str, str]) -> list[str]:
    """Imports that go up, or across to a neighbour. names: modules by what they are called in `floors`."""
    wrong = []
    for called, name in names.items():
        floor, room = floor_of(called, floors)
        for imported in sorted(set(imports(name))):
            target = next((c for c, n in names.items() if n == imported), None)
            if target is None:
                continue
            below, other = floor_of(target, floors)
            if below < floor or (below == floor and other != room):
                wrong.append(f"{name} imports {imported}")
    return wrong


def test_imports_run_downwards() -> None:
    assert climbing(FLOORS, {name: name for name in MODULES}) == []


def test_imports_run_downwards_within_evaluation() -> None:
    prefix = "rlhf.evaluation."
    assert climbing(EVALUATION, {n.removeprefix(prefix): n for n in MODULES if n.startswith(prefix)}) == []


def circles() -> list[list[str]]:
    """Groups of modules that reach each other by imports (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(set(imports(name)) - {name}):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(group)

    for name in MODULES:
        if name not in index:
            visit(name)
    return found


def test_no_module_is_in_a_circle_of_imports() -> None:
    assert circles() == []


def docstring_says_why(name: str) -> bool:
    """A module that reads better long says so."""
    return "long because" in (ast.get_docstring(TREES[name]) or "").replace("\n", " ")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_is_one_idea(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES or docstring_says_why(name), f"{lines} lines"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines"
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([argument for argument in given if argument.arg not in ("self", "cls")])
            assert node.name.startswith("_") or count <= MOST_PARAMETERS, f"{node.name} takes {count}"


def test_the_page_people_read_to_learn_ppo_is_short() -> None:
    assert len((ROOT / "stages" / "ppo.py").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("name", sorted(name for name, path in MODULES.items() if path.name == "__init__.py"))
def test_a_package_says_what_is_inside(name: str) -> None:
    said = ast.get_docstring(TREES[name])
    assert said
    assert len(said) > 40 or name in ("rlhf", "stages"), said


def test_every_key_of_the_config_is_read() -> None:
    """As an attribute, anywhere but in the schema. Keys of mappings and whole nodes count by their own names."""
    from rlhf.config.keys import all_keys

    read = {
        node.attr
        for name, tree in TREES.items()
        if not name.startswith("rlhf.config")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    schema = {  # properties of the schema are read from outside as well, and read keys themselves
        node.attr
        for name, tree in TREES.items()
        if name.startswith("rlhf.config")
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name in read
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
    }
    assert [key for key in all_keys() if key.rpartition(".")[2] not in read | schema] == []
