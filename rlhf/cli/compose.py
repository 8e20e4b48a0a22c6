"""From command-line words to checked Configs: every job's config is composed and checked before the first one runs."""

from __future__ import annotations

import argparse
import copy
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.chain.jobs import job_name, swept_settings
from rlhf.config import Config
from rlhf.config.keys import all_keys, all_nodes, did_you_mean, mappings
from rlhf.config.unread import first_unread
from rlhf.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

CONFIG_NAME = "config"
# Chosen by `config.yaml` or not at all; a user may leave out the + that Hydra wants before the latter.
ADDED_GROUPS = ("recipe", "debug", "sweep")
_OPTIM_NODES = ("pretrain.optim", "sft.optim", "reward.optim", "ppo.optim", "ppo.value_optim")


@dataclass(frozen=True)
class Job:
    """One run of the pipeline: the only one, or one of a sweep."""

    name: str | None  # the swept overrides, "ppo.kl.coef=0.02,seed=1"; None when nothing is swept
    swept: tuple[str, ...]  # the same as settings, without the choice of a stage
    config: Config


def conf_dir() -> Path:
    """Where the YAML files are: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise UserError(f"No conf/ with {CONFIG_NAME}.yaml beside or inside {package}; install rlhf again.")


def groups(extra: Path | None = None) -> dict[str, list[str]]:
    """The config groups and their options, from the folder's listing; `extra` is --config-dir.

    A file whose name starts with _ is a part that options share, and none itself.
    """
    found: dict[str, list[str]] = {}
    for root in (conf_dir(), extra):
        for folder in sorted(root.iterdir()) if root is not None and root.is_dir() else ():
            options = sorted(file.stem for file in folder.glob("[!_]*.yaml")) if folder.is_dir() else []
            if options:
                found[folder.name] = sorted({*found.get(folder.name, ()), *options})
    return found


def register_schema() -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="config_schema", node=Config)


def normalise(word: str) -> str:
    """The override as Hydra wants it: `recipe=x` gets its plus, `zero=3` its quotes, new dictionary keys theirs."""
    key, equals, value = word.partition("=")
    if not equals:
        return word
    name = key.lstrip("+~")
    if name in ADDED_GROUPS and key == name:
        key = f"+{name}"
    if name in groups():
        # Hydra reads a bare 3 as a number and takes only words for options.
        value = re.sub(r"(?<![\w.'\"-])(\d+)(?![\w.'\"-])", r"'\1'", value)
    if key == name and name.rpartition(".")[0] in mappings():
        key = f"++{name}"
    return f"{key}={value}"


def with_data_path(words: Sequence[str]) -> list[str]:
    """`data=FILE` is `data=jsonl data.path=FILE`, the file of one's own whose shape is told by its columns.

    So is `data.path=FILE` alone: the default group's settings are the sandbox's, which reads no file.
    """
    spelled = []
    for word in words:
        key, _, value = word.partition("=")
        is_file = key == "data" and _is_file(value.strip("'\""))
        spelled += ["data=jsonl", f"data.path={value}"] if is_file else [word]
    typed = {word.partition("=")[0].lstrip("+") for word in spelled}
    alone = "data.path" in typed and not typed & {"data", "data.source", "recipe"}
    return [*spelled, "data=jsonl"] if alone else spelled


def _is_file(path: str) -> bool:
    """Whether what follows `data=` names a file, there or not, and no group."""
    named = path.removesuffix(".gz").endswith((".jsonl", ".json", ".csv", ".tsv", ".parquet"))
    return path not in groups()["data"] and (named or "/" in path or Path(path).expanduser().exists())


def with_model_group(words: Sequence[str]) -> list[str]:
    """Adds `model=custom` where a model is named by its path alone: the default group's settings are the sandbox's."""
    values = {key.lstrip("+"): value for key, _, value in (word.partition("=") for word in words)}
    path = values.get("model.path", "builtin:").strip("'\"")
    by_path = "model" not in values and "recipe" not in values and not path.startswith("builtin:")
    return [*words, "model=custom"] if by_path else list(words)


def debug_last(words: Sequence[str]) -> list[str]:
    """Puts `+debug=...` behind the other groups, whose numbers it is there to shrink; Hydra lets the last one win."""
    return sorted(words, key=lambda word: word.partition("=")[0] == "+debug")


def expand(arguments: argparse.Namespace) -> list[Job]:
    """Every job the command line asks for, composed and checked.

    Raises UserError, one sentence, for a wrong key, option, type or combination in any of them. A sweeper other than
    Hydra's basic one chooses its jobs while it runs; then the list is empty and only the fixed part is checked.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    register_schema()
    extra = Path(arguments.config_dir).absolute() if arguments.config_dir else None
    if extra is not None and not extra.is_dir():
        raise UserError(f"--config-dir {extra} is no folder.")
    parser = OverridesParser.create()
    words: list[str] = list(arguments.overrides)
    try:
        overrides = parser.parse_overrides(words)
    except OverrideParseException as error:
        raise _syntax_error(error) from None
    for override in overrides:
        _check(override, extra)
    jobs = _jobs(arguments, overrides, extra)
    set_here = [o.key_or_group for o in overrides if not o.is_delete() and _word(o.value()) != "None"]
    unread = first_unread(set_here, [job.config for job in jobs]) if jobs else None
    if unread is not None:
        raise UserError(unread)
    return jobs


def _jobs(arguments: argparse.Namespace, overrides: Sequence[Override], extra: Path | None) -> list[Job]:
    from hydra import initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    words: list[str] = list(arguments.overrides)
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        fixed = [word for word, o in zip(words, overrides, strict=True) if not o.is_sweep_override()]
        composed = _compose(fixed, extra, with_hydra=True)
        hydra = composed.hydra
        sweeping = arguments.multirun or str(hydra.mode).endswith("MULTIRUN")
        if not sweeping:
            for override in overrides:
                if override.is_sweep_override():
                    raise UserError(
                        f"{override.input_line} names several values; add -m to run them all, or use [a,b] for a list."
                    )
            return [Job(None, (), to_config(_without_hydra(composed)))]
        parameters = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
        own = {o.get_key_element() for o in overrides}
        swept = [o for o in (parser.parse_override(normalise(p)) for p in parameters) if o.get_key_element() not in own]
        for override in swept:
            _check(override, extra)
        if not hydra.sweeper._target_.endswith("BasicSweeper"):
            _config(fixed, extra)
            return []
        swept += [o for o in overrides if o.is_sweep_override()]
        choices = itertools.product(*([f"{o.get_key_element()}={v}" for v in _values(o)] for o in swept))
        if any(o.key_or_group in groups(extra) or o.package or o.is_add() for o in swept):
            return [Job(job_name(c), swept_settings(c), _config([*fixed, *c], extra)) for c in choices]
        base = _without_hydra(composed)
        return [
            Job(job_name(c), swept_settings(c), _with_values(base, parser.parse_overrides(list(c)))) for c in choices
        ]


def fixed_keys(arguments: argparse.Namespace) -> list[str]:
    """The override keys, as typed, that are the same in every job of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(arguments.overrides))
    return [o.get_key_element() for o in overrides if not o.is_sweep_override()]


def _values(override: Override) -> list[str]:
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} is no list of values; give them with commas: {override.key_or_group}=1,2."
        )
    return list(override.sweep_string_iterator())


def _syntax_error(error: Exception) -> UserError:
    word = str(getattr(error, "override", "")) or str(error).splitlines()[0]
    if "=" not in word:
        return UserError(f"{word!r} is no setting; write KEY=VALUE, such as stage=sft (python -m rlhf --help).")
    return UserError(f"{word!r} cannot be read; put quotes round its value, '{word.partition('=')[0]}=\"...\"'.")


def _check(override: Override, extra: Path | None) -> None:
    """UserError for a key, option or value that does not exist, before Hydra says so in its own words."""
    name = override.key_or_group
    known = groups(extra)
    if name == "hydra" or name.startswith(("hydra.", "hydra/")):
        return
    if override.is_delete():
        if name not in known:
            raise UserError(f"{override.input_line} would remove a setting that is needed; set {name}=VALUE instead.")
        return
    values = list(override.sweep_iterator()) if override.is_discrete_sweep() else [override.value()]
    if name in known and not any(isinstance(value, dict) for value in values):
        for value in values:
            for option in value if isinstance(value, list) else [value]:
                _check_option(name, _word(option), known[name])
        return
    keys = all_keys()
    if name.rpartition(".")[0] in mappings():
        return
    if name in all_nodes() or name in known:
        if not all(isinstance(value, dict) for value in values):
            raise UserError(f"{name} is a group of settings; set one of them, such as {_first_key(name)}=VALUE.")
        return
    if name not in keys:
        hint = did_you_mean(name, [*keys, *known, *all_nodes()])
        raise UserError(f"There is no setting {name}.{hint or ' python -m rlhf --help lists them.'}")
    for value in values:
        _check_value(name, value)


def _word(value: Any) -> str:
    from hydra.core.override_parser.types import QuotedString

    return value.text if isinstance(value, QuotedString) else str(value)


def _first_key(node: str) -> str:
    return next(key for key in all_keys() if key.startswith(f"{node}."))


def _check_option(group: str, option: str, options: Sequence[str]) -> None:
    if option not in options:
        hint = did_you_mean(option, options)
        more = " A model of your own is model.path=PATH_OR_HUB_ID." if group == "model" else ""
        raise UserError(f"There is no {group}={option}; {group} is one of {', '.join(options)}.{hint}{more}")


def _check_value(name: str, value: Any) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    text = _word(value)
    if "${" in text:
        return
    if isinstance(value, list):
        value = [_word(item) if not isinstance(item, (int, float, dict, list)) else item for item in value]
    elif not isinstance(value, (int, float, dict)) and value is not None:
        value = text
    if name == "zero.stage" and text == "none":
        value = 0
    try:
        OmegaConf.update(OmegaConf.structured(Config), name, value)
    except OmegaConfBaseException:
        key = all_keys()[name]
        shown = "null" if value is None else text
        choices = key.allowed.removeprefix("one of ").split(", ") if key.allowed.startswith("one of ") else []
        raise UserError(
            f"{name}={shown} does not fit; {name} takes {key.allowed}.{did_you_mean(shown, choices)}"
        ) from None


def _compose(words: Iterable[str], extra: Path | None, *, with_hydra: bool = False) -> Any:
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    search = [f"hydra.searchpath=[file://{extra}]"] if extra is not None else []
    try:
        return compose(CONFIG_NAME, overrides=[*words, *search], return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        first = str(cause).splitlines()[0].rstrip(".")
        key = getattr(cause, "full_key", None)
        where = f" (at {key})" if key else ""
        raise UserError(f"The config does not compose{where}: {first}.") from None


def _without_hydra(composed: Any) -> Any:
    """The job's own settings of what was composed with Hydra's beside them, which go. Composing anew takes 0.3 s."""
    from omegaconf import flag_override

    with flag_override(composed, ["struct", "readonly"], False):
        composed.pop("hydra", None)
    return composed


def _with_values(base: Any, overrides: Iterable[Override]) -> Config:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    composed = copy.deepcopy(base)
    for override in overrides:
        try:
            OmegaConf.update(composed, override.key_or_group, override.value())
        except OmegaConfBaseException as error:
            raise UserError(f"{override.input_line} does not fit: {str(error).splitlines()[0]}.") from None
    return to_config(composed)


def _config(words: Iterable[str], extra: Path | None) -> Config:
    return to_config(_compose(words, extra))


def to_config(composed: Any) -> Config:
    """The plain dataclasses of a composed config. Raises UserError for an impossible combination of values."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise UserError(f"{missing[0]} has no value; set {missing[0]}=VALUE.")
        for node in _OPTIM_NODES:  # five nodes share a class, which cannot know which of them it is
            _optim_or_error(composed, node)
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(f"The config does not resolve: {str(error).splitlines()[0]}.") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None
    assert isinstance(config, Config)
    return config


def _optim_or_error(composed: Any, node: str) -> None:
    from omegaconf import OmegaConf

    try:
        OmegaConf.to_object(OmegaConf.select(composed, node))
    except ValueError as error:
        raise UserError(str(error).replace("optim.", f"{node}.", 1)) from None
