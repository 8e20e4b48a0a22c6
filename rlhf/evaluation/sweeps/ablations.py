"""What a coefficient changes: scores and what is left of pretraining, as figures 33 and 34 of arXiv:2203.02155."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf.evaluation.pages.figures import Figure, Style, canvas
from rlhf.evaluation.sweeps.marks import method_title, of_base, over_coefficients
from rlhf.evaluation.sweeps.points import Point, Value, value, value_of_seeds
from rlhf.evaluation.sweeps.summary import Measured, accuracy

if TYPE_CHECKING:
    pass


ABLATIONS = "Ablations: the KL coefficient and the pretraining gradients"


def ablation(
    measured: Measured,
    base: str,
    curves: Sequence[Sequence[str]],
    key: str,
    coefficient: str,
    looks: Mapping[str, Style],
) -> list[Figure]:
    """Scores and what is left of pretraining over a coefficient, as the paper's figures 33 and 34."""
    lines = [line for line in ([measured.point(label) for label in curve] for curve in curves) if line[0].base == base]
    if not lines:
        return []
    drawn = []
    panels: tuple[tuple[str, str, str, float], ...] = (
        ("judge", f"{measured.judge.capitalize()} score", measured.units["judge"], 1.0),
        ("proxy", "Reward-model score", measured.units["proxy"], 1.0),
        ("benchmark", "Held-out task accuracy", "accuracy (% of items)", 100.0),
        ("text_loss", "Loss on held-out text", "nats per token", 1.0),
    )
    for quantity, title, unit, scale in panels:

        def measure(point: Point, quantity: str = quantity) -> Value | None:
            if quantity == "benchmark":
                return accuracy(measured, point)
            if quantity == "text_loss":
                return value_of_seeds(point.text_loss) if point.text_loss else None
            arrays = point.per_prompt.get(quantity)
            return value(arrays, measured.bootstrap) if arrays else None

        if not any(measure(point) for line in lines for point in line):
            continue
        references = [
            (method, found)
            for method in ("base", "sft")
            for point in measured.find(method, base)[:1]
            if not (method == "base" and quantity in ("judge", "proxy")) and (found := measure(point)) is not None
        ]
        caption = {
            "benchmark": "What pretraining had taught. Bars are 95 % intervals over items and seeds.",
            "text_loss": "What pretraining had taught. Bars are 95 % intervals over seeds, where there are several.",
        }.get(quantity, "Bars are 95 % intervals over prompts and seeds.")
        if references:
            caption += " Dashed: " + " and ".join(f"the {method_title(method)} model" for method, _ in references) + "."
        with canvas(f"{title} against {key}{of_base(measured, base)}", caption, ABLATIONS) as (axes, finish):
            for method, found in references:
                axes.axhline(scale * found.mean, color=looks[method].colour, linestyle="--", linewidth=1)
                axes.annotate(
                    method_title(method),
                    (1.0, scale * found.mean),
                    xycoords=("axes fraction", "data"),
                    xytext=(-2, 3),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7.5,
                    color=looks[method].colour,
                )
            over_coefficients(axes, lines, coefficient, measure, looks, scale)
            axes.set_xlabel(key)
            axes.set_ylabel(unit)
            drawn.append(finish())
    return drawn
