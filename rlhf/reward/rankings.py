"""Rankings on disk and in batches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.data.codec import from_values, to_values
from rlhf.data.encoding import EncodedRanking
from rlhf.data.records import Ranking, Split
from rlhf.errors import UserError
from rlhf.models.batches import pad_right
from rlhf.runtime.files import write_text_atomic


def write_rankings(path: Path, rankings: Mapping[Split, Sequence[Ranking]]) -> None:
    """One JSON line a ranking, with its split; the file appears whole."""
    lines = [
        json.dumps({"split": split.value, **to_values(ranking)}, ensure_ascii=False)
        for split, chosen in rankings.items()
        for ranking in chosen
    ]
    write_text_atomic(path, "\n".join(lines) + "\n")


def read_rankings(path: Path) -> dict[Split, list[Ranking]]:
    """What `write_rankings` wrote. Raises UserError for a file that is damaged."""
    rankings: dict[Split, list[Ranking]] = {split: [] for split in Split}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            if line:
                row = json.loads(line.decode("utf-8"))
                rankings[Split(row["split"])].append(from_values(Ranking, row))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged in line {number} ({type(error).__name__}); move it away, and the same command has "
                "completions sampled and ranked anew."
            ) from None
    return rankings


def has_pair(ranking: Ranking) -> bool:
    """Whether the completions are not all tied."""
    return len(set(ranking.ranks)) > 1


@dataclass(frozen=True)
class KWayCollator:
    """Batches of prompts with their K completions, every completion once.

    Gives input_ids and attention_mask (completions, seq), padded on the right to a multiple of 8; place
    (completions, 2) int64, the prompt and completion that each row is; ranks, mask and margins (prompts, K), padded
    with mask False.
    """

    pad_token_id: int

    def __call__(self, rankings: Sequence[EncodedRanking]) -> dict[str, Any]:
        sequences = [ids for ranking in rankings for ids in ranking.sequences]
        input_ids, lengths = pad_right(sequences, self.pad_token_id)
        counts = [len(ranking.sequences) for ranking in rankings]
        mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        batch = {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "place": mask.nonzero(),
            "ranks": torch.zeros(mask.shape, dtype=torch.long),
            "mask": mask,
        }
        batch["ranks"][mask] = torch.tensor([rank for ranking in rankings for rank in ranking.ranking.ranks])
        worths = [ranking.ranking.margins or (0.0,) * len(ranking.sequences) for ranking in rankings]
        batch["margins"] = torch.zeros(mask.shape)
        batch["margins"][mask] = torch.tensor([worth for row in worths for worth in row])
        return batch


def by_prompt(scores: Tensor, place: Tensor, shape: torch.Size) -> Tensor:
    """(prompts, K) scores from (completions,) ones; 0 where there is no completion."""
    return scores.new_zeros(shape).index_put((place[:, 0], place[:, 1]), scores)
