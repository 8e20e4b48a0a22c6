"""A user's YAML file as mappings, lists and texts: nothing is guessed, so `no`, `0` and `1e3` stay what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.errors import UserError

_MOST_VALUES = 1_000_000


def read(path: str, key: str) -> dict[str, Any]:
    """The file's mapping. Its values are texts, lists and mappings; a missing value is "".

    key: the setting that names the file, for error messages.
    Raises UserError, with the line where there is one, for a file that cannot be read, is no YAML, is no mapping, or
    gives a key twice (which YAML's own readers let pass).
    """
    import yaml

    file = Path(path).expanduser()
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{key}={path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"{file.name}, line {mark.line + 1}" if mark is not None else file.name
        raise UserError(f"{where}: this is no YAML ({problem or str(error).splitlines()[0]}).") from None
    try:
        value = _Reader(file.name).value(node)
    except RecursionError:
        raise UserError(f"{file.name}: an alias (*name) refers to what it is a part of.") from None
    if not isinstance(value, dict) or not value:
        raise UserError(f"{file.name} is no mapping; it is to hold `name: value` entries.")
    return value


class _Reader:
    """Nodes to values, as many as a file that a person wrote can mean: aliases of aliases unfold to any number."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = _MOST_VALUES

    def value(self, node: Any) -> Any:
        import yaml

        self._left -= 1
        if self._left < 0:
            raise UserError(f"{self._name} unfolds to more than {_MOST_VALUES:,} values; write it without aliases.")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if not isinstance(node, yaml.MappingNode):
            return "" if node is None else node.value
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            where = f"{self._name}, line {key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{where}: a key is a list or a mapping; keys are texts.")
            if key_node.value in values:
                raise UserError(f"{where}: the key {key_node.value} was given before; keep one of the two.")
            values[key_node.value] = self.value(value_node)
        return values
