"""The figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.evaluation.comparison.benchmark_tables import own_benchmark
from rlhf.evaluation.comparison.curves import Curves, series
from rlhf.evaluation.comparison.text import ordered, scoring
from rlhf.evaluation.judges.judge import judge_title
from rlhf.evaluation.pages.figures import Figure, Style, canvas, legend_columns, root_axis, styles, whiskers


def figures(report: Mapping[str, Any], curves: Curves) -> list[Figure]:
    """Every figure that the numbers at hand allow, in the order of the report."""
    looks = styles(ordered(report))
    drawn = [win_rates(report, looks)]
    drawn += by_task(report, looks)
    drawn += benchmark_by_task(report, looks)
    drawn += over_steps(curves, looks)
    if len([name for name in curves.ppo if name in looks]) > 1:
        for root in (False, True):
            drawn += [against_kl(report, curves, looks, judge, root=root) for judge in scoring(report)]
    drawn += training_curves(curves)
    return drawn


def _judges(report: Mapping[str, Any]) -> list[str]:
    return list(report["units"])


def win_rates(report: Mapping[str, Any], looks: Mapping[str, Style]) -> Figure:
    """Win rate against the baseline with its interval, a line a candidate, a marker a judge."""
    names = [name for name in ordered(report) if name != report["baseline"]]
    judges = _judges(report)
    caption = (
        f"Share of prompts on which a candidate's answer beats {report['baseline']}'s, ties counted as half; bars are "
        f"95 % intervals. Filled: {judge_title(judges[0])}."
    )
    if len(judges) > 1:
        hollow = ", ".join(judge_title(judge) for judge in judges[1:])
        caption += f" Hollow{', from the top down' if len(judges) > 2 else ''}: {hollow}."
    height = 1.15 + 0.42 * max(len(names), 1)
    with canvas(f"Win rate against {report['baseline']}", caption, "Who wins", height) as (axes, finish):
        axes.axvline(50, color="black", linewidth=1, linestyle="--")
        for row, name in enumerate(names):
            for place, judge in enumerate(judges):
                scores = report["candidates"][name]["judges"][judge]
                if scores["win_rate"] is None:
                    continue
                look = looks[name]
                value = 100 * scores["win_rate"]
                y = row + 0.28 * (place - (len(judges) - 1) / 2)
                interval = [[100 * bound for bound in scores["win_rate_ci"]]]
                axes.errorbar(
                    [value],
                    [y],
                    xerr=whiskers([value], interval),
                    color=look.colour,
                    marker=look.marker,
                    markerfacecolor=look.colour if place == 0 else "white",
                    capsize=3,
                    zorder=3,
                )
                near_edge = value > 80
                axes.annotate(
                    f"{value:.0f} %",
                    (interval[0][0] if near_edge else interval[0][1], y),
                    xytext=(-5 if near_edge else 5, 0),
                    textcoords="offset points",
                    ha="right" if near_edge else "left",
                    va="center",
                    fontsize=8,
                )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("win rate (% of prompts)")
        axes.grid(axis="y", visible=False)
        return finish()


def by_task(report: Mapping[str, Any], looks: Mapping[str, Style]) -> list[Figure]:
    """Win rate by task family, best family of the leading candidate first; [] when the data names no tasks."""
    names = [name for name in ordered(report) if name != report["baseline"]]
    if not names or not report["candidates"][names[0]]["tasks"]:
        return []
    lead = "ppo" if "ppo" in names else names[-1]
    rates = {task: scores["win_rate"] for task, scores in report["candidates"][lead]["tasks"].items()}
    # Families without a verdict come last, and have no mark.
    tasks = sorted(rates, key=lambda task: (rates[task] is None, -(rates[task] or 0.0), task))
    caption = (
        f"The same by task family, {judge_title(report['judge'])} judge, ordered by {lead}; lines are 95 % intervals, "
        "wide where a family has few prompts."
    )
    height = 1.3 + (0.2 + 0.1 * len(names)) * len(tasks)
    with canvas("Win rate by task family", caption, "Who wins", height) as (axes, finish):
        axes.axvline(50, color="black", linewidth=1, linestyle="--")
        for place, name in enumerate(names):
            look = looks[name]
            offset = 0.6 * (place - (len(names) - 1) / 2) / max(len(names), 2)
            scores = [report["candidates"][name]["tasks"][task] for task in tasks]
            rows = [row for row, score in enumerate(scores) if score["win_rate"] is not None]
            values = [100 * scores[row]["win_rate"] for row in rows]
            bounds = [[100 * bound for bound in scores[row]["win_rate_ci"]] for row in rows]
            axes.errorbar(
                values,
                [row + offset for row in rows],
                xerr=whiskers(values, bounds),
                color=look.colour,
                marker=look.marker,
                linestyle="none",
                elinewidth=0.9,
                label=name,
                zorder=3,
            )
        counts = report["candidates"][lead]["tasks"]
        axes.set_yticks(range(len(tasks)), [f"{task.replace('_', ' ')} ({counts[task]['prompts']})" for task in tasks])
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        axes.set_xlim(-2, 102)
        axes.set_xlabel(f"win rate against {report['baseline']} (% of prompts)")
        axes.grid(axis="y", visible=False)
        axes.figure.legend(loc="outside lower center", ncols=legend_columns(names))
        return [finish()]


def benchmark_by_task(report: Mapping[str, Any], looks: Mapping[str, Style]) -> list[Figure]:
    """Accuracy on the held-out tasks, all of them first, then by task; [] without a benchmark."""
    names = ordered(report)
    measured = {name: own for name in names if (own := own_benchmark(report["candidates"][name])) is not None}
    if not measured:
        return []
    names = list(measured)  # a few-shot prompt, a best of n and a file of outputs have none
    first = measured[names[0]]
    tasks = sorted(first["tasks"], key=lambda task: (-first["tasks"][task]["accuracy"], task))
    caption = (
        "Share of multiple-choice items whose right option the model finds the likeliest: what it still knows and can "
        f"do of its pretraining. Lines are 95 % intervals; dashed: choosing at random ({100 * first['chance']:.0f} %)."
    )
    height = 1.3 + (0.2 + 0.1 * len(names)) * (1 + len(tasks))
    with canvas("Held-out tasks", caption, "Held-out tasks", height) as (axes, finish):
        axes.axvline(100 * first["chance"], color="black", linewidth=1, linestyle="--")
        for place, name in enumerate(names):
            look = looks[name]
            offset = 0.6 * (place - (len(names) - 1) / 2) / max(len(names), 2)
            scores = [measured[name], *(measured[name]["tasks"][task] for task in tasks)]
            values = [100 * score["accuracy"] for score in scores]
            bounds = [[100 * bound for bound in score["ci"]] for score in scores]
            axes.errorbar(
                values,
                [row + offset for row in range(len(scores))],
                xerr=whiskers(values, bounds),
                color=look.colour,
                marker=look.marker,
                linestyle="none",
                elinewidth=0.9,
                label=name,
                zorder=3,
            )
        shown = [f"{task.replace('_', ' ')} ({first['tasks'][task]['n']})" for task in tasks]
        axes.set_yticks(range(1 + len(tasks)), [f"all ({first['n']})", *shown])
        axes.set_ylim(len(tasks) + 0.6, -0.6)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy (% of items)")
        axes.grid(axis="y", visible=False)
        axes.figure.legend(loc="outside lower center", ncols=legend_columns(names))
        return [finish()]


# Title, unit, and the names under which training batches and held-out prompts log it.
_PPO_PANELS = (
    ("Reward-model score over PPO", "reward-model score", "objective/score", "eval/score"),
    ("Gold score over PPO", "gold score (0 to 1)", "objective/gold", "eval/gold"),
    ("KL from SFT over PPO", "KL (nats per response)", "objective/kl", "eval/kl"),
    ("Response length over PPO", "tokens", "rollout/response_tokens", "eval/response_tokens"),
)


def over_steps(curves: Curves, looks: Mapping[str, Style]) -> list[Figure]:
    """Reward, gold score, KL and length over PPO's steps, a figure each that has any points."""
    drawn = []
    for title, unit, train_name, eval_name in _PPO_PANELS:
        lines = []
        for candidate, rows in curves.ppo.items():
            train, held_out = series(rows, train_name), series(rows, eval_name)
            if candidate in looks and (train[0] or held_out[0]):
                lines.append((candidate, train, held_out))
        if not lines:
            continue
        marked = any(held_out[0] for _, _, held_out in lines)
        caption = "Line: mean of each training batch." + (" Markers: held-out prompts." if marked else "")
        with canvas(title, caption, "PPO, step by step") as (axes, finish):
            for candidate, train, held_out in lines:
                look = looks[candidate]
                faded = 0.55 if held_out[0] else 1.0
                axes.plot(*train, color=look.colour, linestyle=look.line, alpha=faded, linewidth=1.1)
                axes.plot(*held_out, color=look.colour, linestyle="none", marker=look.marker, zorder=3)
                axes.plot([], [], color=look.colour, linestyle=look.line, marker=look.marker, label=candidate)
            axes.set_xlabel("PPO iteration")
            axes.locator_params(axis="x", integer=True)
            axes.set_ylabel(unit)
            if len(lines) > 1:
                names = [candidate for candidate, _, _ in lines]
                axes.figure.legend(loc="outside lower center", ncols=legend_columns(names))
            drawn.append(finish())
    return drawn


def against_kl(
    report: Mapping[str, Any], curves: Curves, looks: Mapping[str, Style], judge: str, *, root: bool
) -> Figure:
    """Mean score against measured KL for SFT and every PPO candidate; `root` spaces the KL axis by its square root."""
    names = [name for name in ordered(report) if name in curves.ppo or name == "sft"]
    names = [name for name in names if report["candidates"][name]["kl"] is not None]
    names.sort(key=lambda name: report["candidates"][name]["kl"])
    axis = "square root of KL" if root else "KL"
    title = f"{judge_title(judge).capitalize()} against {axis}"
    caption = "Each point is a candidate on the held-out prompts, with 95 % intervals; labels give ppo.kl.coef." + (
        " The spacing is that of arXiv:2210.10760." if root else ""
    )
    with canvas(title, caption, "Score against KL across the sweep") as (axes, finish):
        points = [report["candidates"][name] for name in names]
        kl = [max(point["kl"], 0.0) for point in points]
        axes.plot(kl, [point["judges"][judge]["score"] for point in points], color="#999999", linewidth=1, zorder=1)
        for name, x, point in zip(names, kl, points, strict=True):
            look, scores = looks[name], point["judges"][judge]
            # A sampled KL near 0 may come out below it, where the square root has no place.
            bounds = [max(bound, 0.0) for bound in point["kl_ci"]]
            axes.errorbar(
                [x],
                [scores["score"]],
                xerr=whiskers([x], [bounds]),
                yerr=whiskers([scores["score"]], [scores["score_ci"]]),
                color=look.colour,
                marker=look.marker,
                elinewidth=0.9,
                clip_on=False,  # SFT lies on the axis itself
                zorder=3,
            )
            label = f"{curves.kl_coef[name]:g}" if name in curves.kl_coef else name
            axes.annotate(label, (x, scores["score"]), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if root:
            root_axis(axes)
        axes.set_xlim(left=0)
        axes.set_xlabel("KL from SFT (nats per response" + (", spaced by square root)" if root else ")"))
        axes.set_ylabel(report["units"][judge])
        return finish()


def training_curves(curves: Curves) -> list[Figure]:
    """Loss of SFT, loss and accuracy of the reward model."""
    panels = (
        ("SFT loss", "nats per response token", curves.sft, "loss", 1),
        ("Reward-model loss", "nats per pair", curves.reward, "loss", 1),
        ("Reward-model accuracy", "% of pairs ordered right", curves.reward, "accuracy", 100),
    )
    drawn = []
    for title, unit, rows, quantity, scale in panels:
        train, held_out = series(rows, f"train/{quantity}"), series(rows, f"eval/{quantity}")
        if not (train[0] or held_out[0]):
            continue
        caption = " ".join(
            words
            for words, points in (("Line: training batches.", train), ("Circles: held-out rows.", held_out))
            if points[0]
        )
        with canvas(title, caption, "Earlier stages") as (axes, finish):
            axes.plot(train[0], [scale * y for y in train[1]], color="#6e6e6e", linewidth=1.1)
            axes.plot(
                held_out[0], [scale * y for y in held_out[1]], color="#0072B2", marker="o", linestyle="--", zorder=3
            )
            if quantity == "accuracy":
                axes.axhline(50, color="black", linewidth=1, linestyle=":")
            axes.set_xlabel("optimizer step")
            axes.locator_params(axis="x", integer=True)
            axes.set_ylabel(unit)
            drawn.append(finish())
    return drawn
