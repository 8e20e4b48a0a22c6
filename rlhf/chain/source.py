"""The data source that a config names: the sandbox, files, or a mixture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config import DataConfig, DataSourceName
from rlhf.data.records import DataSource

if TYPE_CHECKING:
    import numpy as np

    from rlhf.data.bad_rows import BadRows
    from rlhf.data.reading import Reading


def load_source(
    config: DataConfig, seed: int, bad_rows_path: Path | None = None, *, show_progress: bool = False
) -> DataSource:
    """The data source that the config names, read whole or found read already.

    bad_rows_path: where rows that are left out are listed, afresh.
    Raises UserError naming file, row and key for what cannot be used.
    """
    if config.source == DataSourceName.sandbox:
        from rlhf.sandbox.source import SandboxSource

        return SandboxSource(config.sandbox, seed)

    from rlhf.data.bad_rows import BadRows

    bad_rows = BadRows(config.on_bad_row, bad_rows_path)
    if config.source == DataSourceName.mixture:
        return _load_mixture(config, seed, bad_rows, show_progress)
    return _load_files(config, seed, bad_rows, show_progress)


def _load_files(config: DataConfig, seed: int, bad_rows: BadRows, show_progress: bool) -> DataSource:
    from rlhf.data.reading import read
    from rlhf.data.screening import screened
    from rlhf.data.source import FileSource

    assert config.path is not None, "the config requires a path for every source but the sandbox"

    def opened(path: str, key: str) -> tuple[Reading, np.ndarray]:
        reading = read(config, path, key, bad_rows, seed=seed, show_progress=show_progress)
        return reading, screened(reading, config, bad_rows)

    own = opened(config.path, "data.path")
    if config.prompts_path is None:
        return FileSource(own, config)
    return FileSource(own, config, prompts=opened(config.prompts_path, "data.prompts_path"))


def _load_mixture(config: DataConfig, seed: int, bad_rows: BadRows, show_progress: bool) -> DataSource:
    from rlhf.data.mixture import MixtureSource
    from rlhf.data.mixture_file import load_parts
    from rlhf.sandbox.source import SandboxSource

    assert config.path is not None, "the config requires a path for every source but the sandbox"
    parts = load_parts(config.path, config)
    sources: dict[str, tuple[DataSource, float]] = {}
    for part in parts:
        if part.config.source == DataSourceName.sandbox:
            sources[part.name] = (SandboxSource(part.config.sandbox, seed), part.weight)
        else:
            sources[part.name] = (_load_files(part.config, seed, bad_rows, show_progress), part.weight)
    settings = {part.name: part.settings for part in parts}
    return MixtureSource(sources, config.mixture, seed, {"source": config.source.value, "settings": settings})
