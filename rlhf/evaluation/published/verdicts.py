"""Win rates of published verdicts.

Verdicts: a list of comparisons with a `preference` each, as AlpacaEval's annotations: 1 where `output_1` is better, 2
where `output_2`, the model under test, is, 0 or 1.5 for a draw, in between where a judge weighs, null for no verdict.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlhf.data.files import shorten
from rlhf.errors import UserError
from rlhf.evaluation.published.rows import rows_of


def win_rate(path: str) -> dict[str, Any]:
    """`win_rate` of the model under test and its `standard_error`, both in percent, over `n` verdicts.

    A draw is half a win; what has no verdict is counted in `without_verdict` and nowhere else. The standard error is
    the sample standard deviation over the square root of n, as AlpacaEval's. Raises UserError for no verdict at all,
    or for a preference that is none.
    """
    wins: list[float] = []
    without = 0
    for row in rows_of(path, "compare.verdicts"):
        if "preference" not in row.values:
            raise UserError(f"{row.where}: it has no `preference`; compare.verdicts takes AlpacaEval's annotations.")
        won = _won(row.values["preference"], row.where)
        if won is None:
            without += 1
        else:
            wins.append(won)
    if not wins:
        raise UserError(f"{path} holds no verdict; set compare.verdicts to a file with some.")
    error = float(np.std(wins, ddof=1)) / math.sqrt(len(wins)) if len(wins) > 1 else math.nan
    return {
        "win_rate": 100 * float(np.mean(wins)),
        "standard_error": 100 * error,
        "n": len(wins),
        "draws": sum(won == 0.5 for won in wins),
        "without_verdict": without,
    }


def _won(preference: Any, where: str) -> float | None:
    if preference is None or (isinstance(preference, float) and math.isnan(preference)):
        return None
    if isinstance(preference, int | float) and not isinstance(preference, bool):
        if preference == 0:
            return 0.5
        if 1 <= preference <= 2:
            return float(preference) - 1
    raise UserError(
        f"{where}: its `preference` is {shorten(preference)!r}; mend it: 1, 2, a number between them, 0 or null."
    )
