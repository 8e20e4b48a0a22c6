"""data.quality applied: the passes in their order, each to what those before it let stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rlhf.config import QualityConfig
from rlhf.data.quality.contamination import contaminated
from rlhf.data.quality.duplicates import duplicates
from rlhf.data.quality.languages import check_languages, languages
from rlhf.data.quality.lengths import lengths
from rlhf.data.quality.near_duplicates import near_duplicates
from rlhf.data.quality.pii import personal
from rlhf.data.quality.prefixes import common_prefixes
from rlhf.data.quality.survivors import Survivors
from rlhf.data.quality.users import users
from rlhf.data.records import Record


def screen(
    records: Iterable[Record], held_out: Sequence[bool] | npt.NDArray[np.bool_], config: QualityConfig
) -> list[str | None]:
    """For each record None when it stays, or why it is left out, as the end of a sentence; in the records' order.

    `records` is read several times, always in one order; `held_out[i]` says that record i is for evaluation. Screening
    again what stayed leaves out nothing more. Raises UserError for an unknown language, or for a pass whose library is
    missing.
    """
    if config.languages:
        check_languages(config.languages)
    survivors = Survivors(records)
    if config.duplicates:
        survivors.leave_out(duplicates(survivors))
    if config.near_duplicates:
        survivors.leave_out(near_duplicates(survivors, config.near_duplicates))
    if config.common_prefix:
        survivors.leave_out(common_prefixes(survivors, config.common_prefix))
    if config.min_response_words or config.max_response_words is not None:
        survivors.leave_out(lengths(survivors, config.min_response_words, config.max_response_words))
    if config.languages:
        survivors.leave_out(languages(survivors, config.languages))
    if config.contamination_words:
        survivors.leave_out(contaminated(survivors, held_out, config.contamination_words))
    if config.max_prompts_per_user:
        survivors.leave_out(users(survivors, config.max_prompts_per_user))
    if config.pii:
        survivors.leave_out(personal(survivors))
    reasons = survivors.reasons()
    return [reasons.get(place) for place in range(len(held_out))]
