"""What others published, measured with our ruler: text metrics of their outputs, win rates of their verdicts."""

from __future__ import annotations

from rlhf.chain.place import run_folder
from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.evaluation.published import (
    differences,
    samples,
    samples_page,
    samples_text,
    verdicts,
    verdicts_page,
    verdicts_summary,
    verdicts_text,
)
from rlhf.runtime.files import write_json_atomic, write_text_atomic
from rlhf.runtime.folder import StageFolder
from rlhf.runtime.printable import printable


def run(config: Config) -> None:
    """Prints the numbers, and writes them to report.json and report.html in the run's compare/.

    Raises UserError where a comparison of models lies there, whose report it would replace.
    """
    settings = config.compare
    folder = StageFolder(run_folder(config) / "compare")
    if folder.manifest is not None:
        raise UserError(f"{folder.path} holds a comparison of models; choose another run with run.name=NAME.")
    if settings.verdicts is not None:
        report = verdicts_summary.summarise(
            verdicts.read(settings.verdicts), bootstrap_samples=settings.bootstrap_samples, seed=config.seed
        )
        shown, page = verdicts_text.text_table(report), verdicts_page.render(report)
    else:
        assert settings.samples is not None
        assert settings.metric is not None, "the config requires both"
        cells = samples.read(settings.samples, settings.metric)
        report = differences.summarise(
            cells, settings.metric, bootstrap_samples=settings.bootstrap_samples, seed=config.seed
        )
        shown, page = samples_text.text_table(report, cells), samples_page.render(report, cells)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder.path / "report.json", report)
    write_text_atomic(folder.path / "report.html", page)
    print(f"{printable(shown)}\n\nreport: {folder.path / 'report.html'}")
