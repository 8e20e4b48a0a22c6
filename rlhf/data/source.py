"""A data source read from files: records by kind, screened, split by a hash of the prompt or as the files say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from rlhf.config import DataConfig
from rlhf.data.codec import KINDS
from rlhf.data.phrasings import load as load_phrasings
from rlhf.data.reading import Reading
from rlhf.data.records import Demonstration, Document, Prompt, Ranking, Record, Sampler, Split, prompt_of
from rlhf.errors import UserError

HAVE = {
    "demonstrations": "every format but plain text",
    "rankings": "data=sandbox, hh_rlhf, summarize_from_feedback, ultrafeedback, openassistant, shp, helpsteer, webgpt, "
    "safe_rlhf and files of completions with ranks, scores, or chosen and rejected",
    "prompts": "every format but plain text",
}

T = TypeVar("T")


def held_out(reading: Reading, config: DataConfig) -> np.ndarray:
    """(records,) bool: which belong to evaluation. As the data says where it tells both splits, else by a hash.

    data.evaluation_fraction=1 is all of them, whatever the data says.
    """
    store = reading.store
    if config.evaluation_fraction == 1:
        return np.ones(len(store), dtype=bool)
    by_hash = np.where(store.user != 0, store.user, store.opening) if config.split_by_user else store.opening
    threshold = np.uint64(int(config.evaluation_fraction * 2**64))
    chosen = by_hash < threshold
    if chosen.all() or not chosen.any():  # all begin alike
        chosen = store.key < threshold
    told = {1, 2} <= set(np.unique(store.split).tolist())
    return np.where(store.split == 0, chosen, store.split == 2) if told else chosen


class FileSource:
    """Records of one file or folder; conversations that begin alike lie in one split, whichever rows they came from.

    own: what was read, and (records,) bool: which of it the screens left.
    prompts: what another path gave, whose prompts stand in for this one's; None: they are its own.
    """

    gold: Callable[[Prompt, str], float] | None = None

    def __init__(
        self,
        own: tuple[Reading, np.ndarray],
        config: DataConfig,
        *,
        prompts: tuple[Reading, np.ndarray] | None = None,
    ) -> None:
        assert config.path is not None, "the config requires a path for every source but the sandbox"
        self.name = config.source.value
        self.path = config.path
        self._config = config
        self._own = own
        self._for_prompts = prompts or self._own

    def demonstrations(self, split: Split) -> Sequence[Demonstration]:
        return self._select("demonstrations", self._own, [Demonstration], split, lambda record: record)

    def rankings(self, split: Split, sample: Sampler) -> Sequence[Ranking]:
        return self._select("rankings", self._own, [Ranking], split, lambda record: record)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Each conversation once, in the order of its first row."""
        kinds: list[type[Record]] = [Demonstration, Ranking, Prompt]
        return self._select("prompts", self._for_prompts, kinds, split, prompt_of, once=True)

    def texts(self, split: Split) -> Sequence[str]:
        """The file's documents; where it has none, its demonstrations as plain text, a paragraph a turn."""
        if self.has_texts:
            return self._select("texts", self._own, [Document], split, lambda record: record.text)
        return self._select("demonstrations", self._own, [Demonstration], split, written_out)

    @property
    def has_texts(self) -> bool:
        return bool(self._of([Document], self._own).any())

    def fingerprint(self) -> dict[str, Any]:
        reading, kept = self._own
        rows = {
            "demonstrations": int(self._of([Demonstration], self._own).sum()),
            "rankings": int(self._of([Ranking], self._own).sum()),
            "prompts": len(self._once(np.flatnonzero(self._of(KINDS[:3], self._for_prompts)), self._for_prompts[0])),
            "texts": int(self._of([Document], self._own).sum()),
        }
        read: dict[str, Any] = {
            "source": self.name,
            "rows": {name: count for name, count in rows.items() if count},
            "sha256": reading.sha256,
            "rows_read": reading.rows,
            "rows_refused": reading.rows_refused,
        }
        if self._config.phrasings is not None:
            read["phrasings_sha256"] = load_phrasings(self._config.phrasings).sha256
        if not kept.all():
            read["records_screened"] = int((~kept).sum())
        if self._for_prompts is not self._own:
            read["prompts_sha256"] = self._for_prompts[0].sha256
        return read

    def _of(self, kinds: Sequence[type[Record]], given: tuple[Reading, np.ndarray]) -> np.ndarray:
        reading, kept = given
        return kept & np.isin(reading.store.kind, [KINDS.index(kind) for kind in kinds])

    @staticmethod
    def _once(indices: np.ndarray, reading: Reading) -> np.ndarray:
        _, first = np.unique(reading.store.key[indices], return_index=True)
        return indices[np.sort(first)]

    def _select(
        self,
        name: str,
        given: tuple[Reading, np.ndarray],
        kinds: Sequence[type[Record]],
        split: Split,
        view: Callable[[Any], T],
        *,
        once: bool = False,
    ) -> Sequence[T]:
        chosen = self._of(kinds, given)
        if not chosen.any():
            raise UserError(f"data={self.name} ({self.path}) has no {name}; {HAVE[name]} can have them.")
        reading, _ = given
        indices = np.flatnonzero(chosen & (held_out(reading, self._config) == (split == Split.evaluation)))
        if not len(indices):
            raise UserError(
                f"The {split.value} split of {self.path} has no {name}: data.evaluation_fraction="
                f"{self._config.evaluation_fraction} of its prompts are held out, by a hash; change that fraction, or "
                "give more rows."
            )
        return reading.store.pick(self._once(indices, reading) if once else indices, view)


def written_out(demonstration: Demonstration) -> str:
    """A demonstration as plain text, a paragraph a turn."""
    return "\n\n".join([*(m.content for m in demonstration.prompt.messages), demonstration.response])
