"""The YAML file that names the parts of a mixture.

    parts:
      helpful: {data: hh_rlhf, path: helpful.jsonl.gz, weight: 2}
      own: {data: jsonl, path: own.jsonl, max_rows: 5000}  # weight: 1

`data` is a part's source, as in data=hh_rlhf; beside `weight` stand any keys of data.* that are about reading.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rlhf.config import DataConfig, DataSourceName, MixtureConfig
from rlhf.config.keys import all_keys, did_you_mean, flatten, mappings
from rlhf.data import plain_yaml
from rlhf.data.files import is_hub_id
from rlhf.errors import UserError

# Of the mixture or of all its parts alike: they are set by data.KEY.
_OF_THE_WHOLE = (
    *("template", "max_prompt_tokens", "long_prompts", "max_response_tokens"),
    *("on_bad_row", "workers", "cache", "mixture"),
)
# What a mixture's own value says nothing about: its path is the YAML file's.
_OF_A_PART = ("source", "path", "prompts_path", "subset", "split", "streaming", "columns", "phrasings", "sandbox")
_PATHS = ("path", "prompts_path", "phrasings")
_NULL = ("", "null", "~")


@dataclass(frozen=True)
class Part:
    name: str
    config: DataConfig
    weight: float

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its records beside the bytes of its files: keys that are not at their defaults; JSON values."""
        default = flatten(DataConfig())
        return {
            key: value
            for key, value in flatten(self.config).items()
            if value != default.get(key) and key.partition(".")[0] not in (*_OF_THE_WHOLE, *_PATHS, "streaming")
        }


def load_parts(path: str, whole: DataConfig | None = None) -> list[Part]:
    """The parts that a YAML file names, in its order. Relative paths in it are relative to the file.

    whole: the config of the mixture itself. A part takes from it what it does not set, such as data.quality or
    data.evaluation_fraction, but for what tells of the file itself.
    Raises UserError naming file, part and key for what is unknown, does not fit or is missing.
    """
    name = Path(path).name
    given = plain_yaml.read(path, "data.path")
    for key in given:
        if key in {field.name for field in fields(MixtureConfig)}:
            raise UserError(f"{name}: {key} is no matter of the parts; set data.mixture.{key} instead.")
        if key != "parts":
            raise UserError(f"{name} has no setting {key}; it holds `parts` alone.{did_you_mean(key, ['parts'])}")
    parts = given.get("parts")
    if not isinstance(parts, dict) or not parts:
        raise UserError(f"{name} is to hold `parts`, a mapping such as {{own: {{data: jsonl, path: own.jsonl}}}}.")
    folder = Path(path).expanduser().resolve().parent
    base = {} if whole is None else {f.name: getattr(whole, f.name) for f in fields(DataConfig)}
    inherited = {key: value for key, value in base.items() if key not in (*_OF_A_PART, "mixture")}
    return [_part(part, values, f"{name}, part {part}", folder, inherited) for part, values in parts.items()]


def _part(name: str, given: Any, where: str, folder: Path, inherited: Mapping[str, Any]) -> Part:
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{where}: a part's name has letters, digits, _, . and - alone.")
    if not isinstance(given, dict):
        raise UserError(f"{where} is no mapping; it is to be such as {{data: jsonl, path: own.jsonl}}.")
    source = given.get("data", "")
    sources = [member.value for member in DataSourceName if member != DataSourceName.mixture]
    if source == DataSourceName.mixture.value:
        raise UserError(f"{where}: a mixture within a mixture is not read; list its parts here.")
    if source not in sources:
        found = f"has no data={source}" if source else "does not say `data`"
        hint = did_you_mean(str(source), sources)
        raise UserError(f"{where} {found}; it is one of {', '.join(sources)}.{hint}")
    values = _flat({key: value for key, value in given.items() if key not in ("data", "weight")})
    _check_keys(values, where)
    for key in _PATHS:
        if values.get(key) not in (None, *_NULL):
            values[key] = _located(str(values[key]), folder)
    return Part(name, _config(source, values, inherited, where), _weight(given.get("weight", "1"), where))


def _flat(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, as they are typed on the command line."""
    flat: dict[str, Any] = {}
    for key, value in given.items():
        name = prefix + key
        if isinstance(value, dict) and f"data.{name}" not in mappings():
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    known = [key.removeprefix("data.") for key in all_keys() if key.startswith("data.") and key != "data.source"]
    allowed = [key for key in known if key.partition(".")[0] not in _OF_THE_WHOLE]
    for key in values:
        if key.partition(".")[0] in _OF_THE_WHOLE:
            raise UserError(f"{where}: {key} is the same for all parts; set data.{key} instead.")
        if key not in allowed:
            hint = did_you_mean(key, ["data", "weight", *allowed])
            raise UserError(f"{where} has no setting {key}.{hint or ' It has data, weight and the keys of data.*.'}")


def _located(path: str, folder: Path) -> str:
    local = folder / Path(path).expanduser()
    return path if is_hub_id(path) and not local.exists() else str(local)


def _config(source: str, values: Mapping[str, Any], inherited: Mapping[str, Any], where: str) -> DataConfig:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node = OmegaConf.structured(DataConfig)
    for key, value in inherited.items():
        OmegaConf.update(node, key, value)
    for key, value in {"source": source, **values}.items():
        try:
            OmegaConf.update(node, key, None if value in _NULL else value)
        except OmegaConfBaseException:
            raise UserError(
                f"{where}: {key}={value} does not fit; it takes {all_keys()[f'data.{key}'].allowed}."
            ) from None
    try:
        config = OmegaConf.to_object(node)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    assert isinstance(config, DataConfig)
    return config


def _weight(written: Any, where: str) -> float:
    try:
        weight = float(written)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UserError(f"{where}: weight is {written}; use a number above 0, or leave the part out.")
    return weight
