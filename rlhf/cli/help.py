"""The page that --help prints."""

from __future__ import annotations

import contextlib

from rlhf.errors import UserError

_HELP = """\
python -m rlhf [-m] [KEY=VALUE ...]         three-stage RLHF in the style of InstructGPT

  Takes a base model through supervised fine-tuning, a reward model and PPO, and compares what each stage won.
  Without arguments it does all of that on the built-in sandbox: no download, a few minutes on a laptop.

Commands
  python -m rlhf                                        the whole chain: sft, reward, ppo, compare
  python -m rlhf stage=sft model=gpt2 data=alpaca data.path=alpaca.json run.name=gpt2        one stage
  python -m rlhf stage=ppo ppo.kl.coef=0.1 run.name=kl0.1 run.parents=runs/demo              from another run's models
  python -m rlhf stage=ppo ppo.policy=PATH ppo.reward_model=PATH run.name=mine               from any models
  python -m rlhf -m +sweep=kl                           a sweep: six KL coefficients, three seeds, one report
  python -m rlhf -m stage=ppo ppo.kl.coef=0,0.02,0.1 ppo.seed=1,2                a sweep of one's own: six jobs
  python -m rlhf +recipe=instructgpt_1p3b run.name=paper                         a paper's numbers
  python -m rlhf +debug=tiny run.name=try                                        anything, shrunk to seconds

Stages (stage=...)
  all         sft, reward, ppo, compare in order; finished ones are skipped, interrupted ones resume (default)
  pretrain    a small base model from nothing
  sft         supervised fine-tuning on demonstrations
  reward      a reward model from ranked completions
  ppo         PPO against the reward model, with a KL penalty towards the SFT model
  compare     win rates with confidence intervals, a table and report.html
  report      what the run's sweeps found: what holds in words, tables, score against KL, win rates by size
  label       a page on which people rank responses; their rankings train, their verdicts compare
  data        what is in the data: rows, lengths in tokens, duplicates, examples with what is learned marked
  self_instruct  a data set of instructions, grown from seed tasks with a model
  plan        what the chain would take of each GPU's memory, whether it fits, and what to change; runs nothing

Settings most often changed (default)
{keys}

Groups (default first)
{groups}

More
  --help NODE      every setting of a node with its meaning; NODE is one of
                   {nodes}
  -m, --multirun   run every combination of comma-separated values
  --cfg job        print the composed config, run nothing
  --config-dir DIR more YAML files for the groups
  --version

Output goes to {root}/RUN/STAGE/, RUN being run.name: config.yaml, manifest.json, metrics.jsonl, samples.jsonl, log.txt,
checkpoints/, model/ (loads with from_pretrained); the comparison to {root}/RUN/compare/report.html.
"""
_NODES_INDENT = " " * 19  # under the words beside --help NODE
_COMMON_KEYS = (
    *("run.name", "seed", "model.path", "model.lora.r", "data.path"),
    *("sft.base", "sft.epochs", "sft.optim.lr", "reward.policy", "reward.epochs", "reward.optim.lr"),
    *(
        "ppo.policy",
        "ppo.reward_model",
        "ppo.episodes",
        "ppo.batch_size",
        "ppo.optim.lr",
        "ppo.kl.coef",
        "ppo.ptx.coef",
    ),
    *("rollout.temperature", "rollout.max_new_tokens", "launch.device", "launch.gpus_per_node"),
)


def help_text(node: str | None = None, *_: str) -> str:
    """The page `--help` prints; with a node or key, every setting under it with type, default and meaning."""
    from rlhf.cli.compose import groups
    from rlhf.config import RunConfig
    from rlhf.config.keys import all_keys, all_nodes, did_you_mean, show

    keys = all_keys()
    options = groups()
    if node is not None and "=" not in node:
        chosen = [key for name, key in keys.items() if name == node or name.startswith(f"{node}.")]
        lines = [f"  {key.name}={show(key.default)}\n      {key.allowed}. {key.meaning}".rstrip() for key in chosen]
        if node in options:
            lines += [f"  {node}={option}\n      {_first_comment(node, option)}".rstrip() for option in options[node]]
        if not lines:
            hint = did_you_mean(node, [*keys, *options, *all_nodes()])
            raise UserError(f"There is no setting or group {node}.{hint}")
        return "\n".join(lines) + "\n"
    width = max(map(len, _COMMON_KEYS))
    listed = [f"  {name:<{width}}  ({show(keys[name].default)}) {keys[name].meaning}".rstrip() for name in _COMMON_KEYS]
    defaults = _default_options()
    lines = []
    for group in options:
        default = defaults.get(group)
        ordered = [*([default] if default else []), *(name for name in options[group] if name != default)]
        plus = "" if default else "+"
        lines.append(f"  {plus + group + '=':<{width}}  {', '.join(ordered)}")
    tops = dict.fromkeys(name.partition(".")[0] for name in all_nodes())
    return _HELP.format(
        keys="\n".join(_cut(line) for line in listed),
        groups="\n".join(_wrap(line, width + 4) for line in lines),
        nodes=_wrap(_NODES_INDENT + ", ".join(sorted(tops)), len(_NODES_INDENT)).lstrip(),
        root=RunConfig().root,
    )


def _cut(line: str, width: int = 120) -> str:
    return line if len(line) <= width else line[: width - 1].rstrip(" ,;") + "…"


def _wrap(line: str, indent: int, width: int = 120) -> str:
    import textwrap

    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def _default_options() -> dict[str, str]:
    """The option config.yaml picks for each group; read without a YAML parser, which would double the time to help."""
    from rlhf.cli.compose import CONFIG_NAME, conf_dir

    chosen: dict[str, str] = {}
    for line in (conf_dir() / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8").splitlines():
        name, colon, option = line.strip().removeprefix("- ").partition(": ")
        if line.startswith("  - ") and colon and "/" not in name:
            chosen[name] = option.strip()
    return chosen


def _first_comment(group: str, option: str) -> str:
    from rlhf.cli.compose import conf_dir

    with contextlib.suppress(OSError):
        for line in (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines():
            if line.startswith("# ") and not line.startswith("# @"):
                return line.removeprefix("# ")
    return ""
