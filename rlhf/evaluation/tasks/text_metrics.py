"""Text metrics against references: BLEU, ROUGE, SQuAD's and DROP's F1 and exact match, accuracy; all from 0 to 100."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf.config import TextMetric
from rlhf.evaluation.tasks import qa_metrics
from rlhf.evaluation.tasks.qa_metrics import Answer

TITLES = {
    "bleu": "BLEU",
    "rougeL": "ROUGE-L",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "squad_f1": "SQuAD F1",
    "squad_em": "SQuAD exact match",
    "drop_f1": "DROP F1",
    "drop_em": "DROP exact match",
    "accuracy": "accuracy",
}
NAMES = {  # of a metric's numbers, the one that is shown where there is room for one first
    TextMetric.bleu: ("bleu",),
    TextMetric.rouge: ("rougeL", "rouge1", "rouge2"),
    TextMetric.squad: ("squad_f1", "squad_em"),
    TextMetric.drop: ("drop_f1", "drop_em"),
    TextMetric.accuracy: ("accuracy",),
}


@dataclass(frozen=True)
class Scores:
    """One number of a metric: each sample's own, and what the number of any selection of samples is made of."""

    name: str  # a key of TITLES
    values: NDArray[np.float64]  # (samples,) from 0 to 100
    corpus: NDArray[np.float64] | None = (
        None  # (samples, 10) counts that sum to a corpus's BLEU; None: a mean of values
    )

    @property
    def value(self) -> float:
        """The number of all samples together."""
        return float(self.of_sums(self.summands.sum(axis=0, keepdims=True))[0])

    @property
    def summands(self) -> NDArray[np.float64]:
        """(samples, k) whose sums over a selection say its number."""
        return np.column_stack([self.values, np.ones(len(self.values))]) if self.corpus is None else self.corpus

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """(draws,) the number of each selection. sums: (draws, k) of its summands."""
        return sums[:, 0] / sums[:, 1] if self.corpus is None else np.array([_bleu_of(row) for row in sums.tolist()])

    def of(self, chosen: Sequence[int]) -> Scores:
        """The scores of some of the samples, in this order."""
        rows = list(chosen)
        return Scores(self.name, self.values[rows], None if self.corpus is None else self.corpus[rows])


def score(metric: TextMetric, samples: Sequence[str], references: Sequence[Sequence[Answer]]) -> list[Scores]:
    """A metric's numbers, in the order of NAMES.

    references: a list a sample, one or more alternatives; one of several spans is a list (DROP), elsewhere read as
                its spans with commas between.
    """
    if metric == TextMetric.drop:
        marks = [qa_metrics.drop(sample, told) for sample, told in zip(samples, references, strict=True)]
        return _named(metric, [(f1, exact) for exact, f1 in marks])
    texts = [[as_text(answer) for answer in told] for told in references]
    return _SCORE[metric](samples, texts)


def as_text(answer: Answer) -> str:
    return answer if isinstance(answer, str) else ", ".join(answer)


def _named(metric: TextMetric, marks: Sequence[Sequence[float]]) -> list[Scores]:
    """marks: a row a sample, from 0 to 1, a column for each of the metric's numbers."""
    columns = 100 * np.array(marks, dtype=np.float64).reshape(len(marks), len(NAMES[metric]))
    return [Scores(name, columns[:, place]) for place, name in enumerate(NAMES[metric])]


def _bleu(samples: Sequence[str], references: Sequence[Sequence[str]]) -> list[Scores]:
    """Corpus BLEU (Papineni et al. 2002; Post 2018, arXiv:1804.08771) with sacrebleu's defaults.

    A sample's own value is its sentence BLEU with effective order, as sacrebleu advises; the corpus's is no mean.
    """
    from sacrebleu.metrics import BLEU

    sentence = BLEU(effective_order=True)
    found = [sentence.sentence_score(sample, told) for sample, told in zip(samples, references, strict=True)]
    counts = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], dtype=np.float64)
    return [Scores("bleu", np.array([one.score for one in found]), counts)]


def _bleu_of(sums: list[float]) -> float:
    from sacrebleu.metrics import BLEU

    whole = [round(count) for count in sums]
    return BLEU.compute_bleu(whole[:4], whole[4:8], sys_len=whole[8], ref_len=whole[9], smooth_method="exp").score


def _rouge(samples: Sequence[str], references: Sequence[Sequence[str]]) -> list[Scores]:
    """F1 of ROUGE-L, -1 and -2 (Lin 2004) with stemming, the best over the references."""
    from rouge_score.rouge_scorer import RougeScorer

    names = NAMES[TextMetric.rouge]
    scorer = RougeScorer(list(names), use_stemmer=True)
    found = [scorer.score_multi(told, sample) for sample, told in zip(samples, references, strict=True)]
    return _named(TextMetric.rouge, [[one[name].fmeasure for name in names] for one in found])


def _squad(samples: Sequence[str], references: Sequence[Sequence[str]]) -> list[Scores]:
    marks = [qa_metrics.squad(sample, told) for sample, told in zip(samples, references, strict=True)]
    return _named(TextMetric.squad, [(f1, exact) for exact, f1 in marks])


def _accuracy(samples: Sequence[str], references: Sequence[Sequence[str]]) -> list[Scores]:
    pairs = zip(samples, references, strict=True)
    return _named(TextMetric.accuracy, [(qa_metrics.accuracy(sample, told),) for sample, told in pairs])


_SCORE: dict[TextMetric, Callable[[Sequence[str], Sequence[Sequence[str]]], list[Scores]]] = {
    TextMetric.bleu: _bleu,
    TextMetric.rouge: _rouge,
    TextMetric.squad: _squad,
    TextMetric.accuracy: _accuracy,
}
