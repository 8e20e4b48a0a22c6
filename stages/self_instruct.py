"""Self-Instruct: a model grows instruction data from seed tasks (Wang et al. 2022, arXiv:2212.10560).

Round by round it proposes instructions like those it is shown, says which are classifications, and writes instances;
what fails a filter is listed with its reason. data.jsonl is what a later `stage=sft data=alpaca` reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf.runtime.distributed import from_main
from rlhf.runtime.files import write_json_atomic
from rlhf.runtime.printable import printable
from rlhf.runtime.progress import Progress, progress
from rlhf.self_instruct import plots, statistics
from rlhf.self_instruct.records import Writer
from rlhf.self_instruct.rounds import grow
from rlhf.self_instruct.seeds import load_seeds
from rlhf.self_instruct.store import Round, Store

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


def run(context: StageContext) -> dict[str, float]:
    """Writes data.jsonl and what led to it, statistics.json and diversity.png; returns what was kept and dropped.

    Of several processes the first does it all: more GPUs help through a server that uses them.
    """
    return from_main(lambda: _run(context))


def _run(context: StageContext) -> dict[str, float]:
    config, folder = context.config, context.folder.path
    settings = config.self_instruct
    seeds = load_seeds(settings.seeds, config.data.sandbox.world_seed)
    store = Store(folder, resume=context.resume)
    context.tracker.rewind(len(store.rounds) - 1)

    there = len(store.instructions)
    bar: Progress[None]
    with progress(settings.instructions, "self_instruct", "instruction", config.tracker.progress, initial=there) as bar:

        def note(made: Round) -> None:
            context.tracker.log(made.number, _metrics(made))
            bar.update(len(made.instructions))

        if there < settings.instructions:
            grow(seeds, _writer(context), store, settings, config.seed, note)

    data = store.write_data()
    summary = statistics.summarise(seeds, store)
    write_json_atomic(folder / "statistics.json", summary)
    plots.diversity(folder / "diversity.png", summary, store, settings.max_similarity)
    print(f"\n{printable(statistics.text_table(summary))}\n")
    print(f"Train on it: python -m rlhf stage=sft data=alpaca data.path={data}")
    return {
        "self_instruct/instructions": summary["instructions"],
        "self_instruct/instances": summary["instances"],
        "self_instruct/proposed": summary["proposed"],
        "self_instruct/dropped": sum(summary["dropped"].values()),
        "self_instruct/rounds": summary["rounds"],
        "self_instruct/seed_rouge_l": summary["rouge_l_to_nearest_seed"]["mean"],
    }


def _writer(context: StageContext) -> Writer:
    config = context.config
    if config.self_instruct.server.url is not None:
        from rlhf.self_instruct.server import Server

        return Server(config.self_instruct.server, bars=config.tracker.progress)
    from rlhf.self_instruct.local import LocalModel

    return LocalModel(str(context.parents["model"]), config)


def _metrics(made: Round) -> dict[str, float]:
    return {
        "self_instruct/proposed": made.proposed,
        "self_instruct/instructions": len(made.instructions),
        "self_instruct/instances": len(made.instances),
        "self_instruct/dropped": len(made.dropped),
    }
