"""Text metrics of published outputs, by group.

Samples: a table with the columns `context`, `ref_text`, `sample` and whichever of `model_type` and `prompt_type` there
are, as InstructGPT's automatic-eval-samples. All of it is text as it stands, "None" and "NA" among it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf.config import TextMetric
from rlhf.errors import UserError
from rlhf.evaluation.published.rows import rows_of
from rlhf.evaluation.winrate import Bootstrap

GROUPS = ("model_type", "prompt_type")
_COLUMNS = ("context", "ref_text", "sample")
_ROUGE = ("rouge1", "rouge2", "rougeL")


def cells(path: str, metric: TextMetric, *, bootstrap_samples: int, seed: int) -> list[dict[str, Any]]:
    """One cell a group of samples: its group, `n`, the metric, from 0 to 100, and its 95 % interval over prompts.

    Cells come in the order of the file. Raises UserError for a row that lacks a column or text in it.
    """
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    names: tuple[str, ...] | None = None
    for row in rows_of(path, "compare.samples"):
        missing = [name for name in _COLUMNS if not isinstance(row.values.get(name), str)]
        if missing:
            raise UserError(
                f"{row.where}: it has no text under `{missing[0]}`; compare.samples takes tables with "
                f"{', '.join(_COLUMNS)}, and {' and '.join(GROUPS)} where there are several."
            )
        names = names if names is not None else tuple(name for name in GROUPS if name in row.values)
        group = tuple(str(row.values.get(name)) for name in names)
        groups.setdefault(group, []).append((row.values["sample"], row.values["ref_text"]))
    if not groups:
        raise UserError(f"{path} holds no rows; set compare.samples to a table of samples.")
    score = {TextMetric.bleu: _bleu, TextMetric.rouge: _rouge}[metric]
    return [
        {
            **dict(zip(names or (), group, strict=True)),
            "n": len(pairs),
            **score(pairs, bootstrap_samples=bootstrap_samples, seed=seed),
        }
        for group, pairs in groups.items()
    ]


def _bleu(pairs: Sequence[tuple[str, str]], *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Corpus BLEU (Post 2018, arXiv:1804.08771) with sacrebleu's defaults; the interval is over resampled prompts."""
    from sacrebleu.metrics import BLEU

    samples, references = [sample for sample, _ in pairs], [reference for _, reference in pairs]
    score = BLEU().corpus_score(samples, [references]).score
    # Its public bootstrap gives a mean and a width alone; a percentile interval needs each draw's score.
    draws = np.random.default_rng(seed).integers(len(pairs), size=(min(bootstrap_samples, 1000), len(pairs)))
    statistics = np.array(BLEU()._extract_corpus_statistics(samples, [references]))
    drawn = [BLEU()._compute_score_from_stats(statistics[draw].sum(0).tolist()).score for draw in draws]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"bleu": score, "bleu_ci": [float(low), float(high)]}


def _rouge(pairs: Sequence[tuple[str, str]], *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), with stemming, times 100."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(_ROUGE), use_stemmer=True)
    scored = [scorer.score(reference, sample) for sample, reference in pairs]
    bootstrap = Bootstrap(len(pairs), samples=bootstrap_samples, seed=seed)
    found: dict[str, Any] = {}
    for name in _ROUGE:
        estimate = bootstrap.estimate([100 * one[name].fmeasure for one in scored])
        found |= {name: estimate.mean, f"{name}_ci": estimate.ci}
    return found
