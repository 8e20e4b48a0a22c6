"""compare.*: who is compared, on what, and what others published."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_positive
from rlhf.config.choices import TextMetric


@dataclass
class CompareConfig:
    candidates: dict[str, str] = field(default_factory=dict)  # further models by name: PATH_OR_HUB_ID
    outputs: dict[str, str] = field(default_factory=dict)  # answers in files by name: FILE, or FILE@NAME in it
    few_shot: int = 0  # training demonstrations that the candidate base-few-shot reads before a prompt; 0: it is none
    best_of: list[int] = field(default_factory=list)  # N: sft-best-of-N, the reward model's choice of N; []: none
    baseline: str = "sft"  # whose responses the others are judged against
    prompts: int = 400  # held-out ones, at most
    temperature: float | None = None  # of the responses that are judged; None: rollout.temperature
    bootstrap_samples: int = 2000  # behind each interval
    benchmark: str | None = (
        None  # a file of multiple choice, rows of {context, options, answer}; None: the sandbox's own
    )
    benchmark_items: int | None = None  # of it, the first ones; None: all, 0: no benchmark
    lm_eval: list[str] = field(default_factory=list)  # tasks of lm-eval, which is an extra: benchmarks
    lm_eval_path: str | None = None  # a folder of task files of one's own, as lm-eval's --include_path
    lm_eval_limit: int | None = None  # items of each task, the first ones; None: all
    lm_eval_shots: int | None = None  # worked examples before each item; None: as each task says
    metrics: list[TextMetric] = field(default_factory=list)  # of answers, where the data has references; []: none
    side_by_side: int = 24  # prompts shown in the report with every candidate's response
    samples: str | None = None  # a table of published outputs beside references, scored by metric; no model is loaded
    metric: TextMetric | None = None  # of samples
    verdicts: str | None = None  # a file of published verdicts, as AlpacaEval's annotations; no model is loaded

    def __post_init__(self) -> None:
        require_positive(
            "compare",
            prompts=self.prompts,
            bootstrap_samples=self.bootstrap_samples,
            side_by_side=self.side_by_side,
        )
        require(self.few_shot >= 0, f"compare.few_shot is {self.few_shot}; use 1 or more demonstrations, or 0 (off).")
        require(
            all(count > 1 for count in self.best_of) and len(set(self.best_of)) == len(self.best_of),
            f"compare.best_of is {self.best_of}; use different numbers of samples, 2 or more each, such as [4,16].",
        )
        twice = next((name for name in self.outputs if name in self.candidates), None)
        require(twice is None, f"compare.outputs and compare.candidates both name {twice}; choose another name.")
        require(
            self.benchmark_items is None or self.benchmark_items >= 0,
            f"compare.benchmark_items is {self.benchmark_items}; use 1 or more, 0 for no benchmark, or null for all.",
        )
        require(
            self.lm_eval_limit is None or self.lm_eval_limit > 0,
            f"compare.lm_eval_limit is {self.lm_eval_limit}; use 1 or more, or null for all items.",
        )
        require(
            self.lm_eval_shots is None or self.lm_eval_shots >= 0,
            f"compare.lm_eval_shots is {self.lm_eval_shots}; use 0 or more, or null for each task's own number.",
        )
        require(
            bool(self.lm_eval) or (self.lm_eval_path, self.lm_eval_limit, self.lm_eval_shots) == (None, None, None),
            "compare.lm_eval_path, lm_eval_limit and lm_eval_shots say how compare.lm_eval's tasks run, and it names "
            "none; set compare.lm_eval=[TASK,...], or leave them out.",
        )
        require(
            self.temperature is None or self.temperature > 0,
            f"compare.temperature is {self.temperature}; use more than 0 (0.01 is close to greedy), or null.",
        )
        require(
            (self.samples is None) == (self.metric is None),
            "compare.samples=FILE and compare.metric=bleu|rouge|squad|drop|accuracy belong together; set both.",
        )
        require(
            self.samples is None or self.verdicts is None,
            "compare.samples and compare.verdicts are two reports; leave one out.",
        )
        require(
            not (self.metrics and self.of_published),
            "compare.metrics is of the answers of candidates, and no model answers here; leave it out, and for "
            "compare.samples set compare.metric.",
        )

    @property
    def names_benchmarks(self) -> bool:
        """Whether a file or lm-eval's tasks are asked for, which have to be there."""
        return self.benchmark is not None or bool(self.lm_eval)

    @property
    def of_published(self) -> bool:
        """Whether what others published is read, and no candidate answers."""
        return self.samples is not None or self.verdicts is not None
