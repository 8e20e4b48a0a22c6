"""Two responses, compared once by helpfulness and once by safety (PKU-SafeRLHF, Ji et al. 2024, arXiv:2406.15513).

Source: PKU-Alignment/PKU-SafeRLHF on the hub, CC BY-NC 4.0 (research only), JSON lines a model that answered (Alpaca
of three kinds); 83,400 pairs, about a tenth of them test. PKU-SafeRLHF-10K and -30K are earlier ones in the same
columns. A row: `prompt`, `response_0`, `response_1`, `is_response_0_safe`, `is_response_1_safe`,
`better_response_id` (the more helpful one, whatever its harm), `safer_response_id` (a safe one always comes before
one that is not), and of each response its model, harm categories and severity.

Safe RLHF (Dai et al. 2023, arXiv:2310.12773) trained a reward model by helpfulness and a cost model by safety and
RL under both; `read` gives the first's pairs and `read_safer` the second's. It fine-tuned on Alpaca's data; here the
preferred response serves as a demonstration where it is labelled safe, and otherwise none does: a helpful answer to
a harmful question is what no policy should be taught. Harmful text is there by design.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.comparisons import best, choice, ranks_of_choice
from rlhf.data.readers.fields import ranking, text, user_prompt
from rlhf.data.records import BadRowError, Demonstration, Ranking


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking]:
    """Ranked by helpfulness."""
    return _read(row, "better_response_id")


def read_safer(row: Mapping[str, Any]) -> list[Demonstration | Ranking]:
    """Ranked by safety."""
    return _read(row, "safer_response_id")


def _read(row: Mapping[str, Any], label: str) -> list[Demonstration | Ranking]:
    chosen = choice(row, label)
    responses = (text(row, "response_0"), text(row, "response_1"))
    ranked = ranking(user_prompt(text(row, "prompt")), responses, ranks_of_choice(chosen))
    return [*(best(ranked) if _is_safe(row, chosen) else []), ranked]


def _is_safe(row: Mapping[str, Any], response: int) -> bool:
    """False where the row has no such label: the variants with one label of preference have none."""
    key = f"is_response_{response}_safe"
    safe = row.get(key)
    if safe is not None and not isinstance(safe, bool):
        raise BadRowError(f"`{key}` is {str(safe)[:40]!r}, neither true nor false")
    return safe is True
