"""Labeling: people rank, rate and mark responses on a page; rankings train a reward model, verdicts compare.

What they say is in labels.sqlite the moment they say it. The server takes what is there where it was left, and writes
rankings.jsonl and verdicts.jsonl when it ends; label.export=true writes them at any other time.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import webbrowser
from pathlib import Path

import uvicorn

from rlhf.chain.place import run_folder
from rlhf.config import Config, RunConfig
from rlhf.data.bad_rows import BadRows
from rlhf.errors import UserError
from rlhf.labeling.export import export
from rlhf.labeling.items import Items, load
from rlhf.labeling.server import address, application, is_loopback, kept_token, listen
from rlhf.labeling.session import Session
from rlhf.labeling.store import Store
from rlhf.runtime.printable import printable


def run(config: Config) -> None:
    """Serves the page until Ctrl-C, then exports; with label.export, exports at once."""
    folder = run_folder(config) / "label"
    database = folder / "labels.sqlite"
    if config.label.export:
        if not database.exists():
            raise UserError(f"There is no {database} to export; judge first: {_in_this_run(config, 'stage=label')}.")
        _export(config, Store(database), folder)
        return
    items = _load(config)
    store = Store(database)
    store.add_items(items.by_key.values())
    session = Session(store, items.by_key, config.label.overlap, config.seed)
    _serve(config, session, items, folder)
    _export(config, store, folder)


def _load(config: Config) -> Items:
    settings = config.label
    own = run_folder(config) / "compare" / "responses.jsonl"
    path = own if settings.responses is None else Path(settings.responses).expanduser()
    if path == own and not own.exists():
        raise UserError(
            f"There is no {path} to judge; make it with {_in_this_run(config, 'stage=compare')}, or set "
            "label.responses=FILE to prompts with their responses."
        )
    bad_rows = BadRows(config.data.on_bad_row, run_folder(config) / "label" / "bad_rows.jsonl")
    items = load(path, bad_rows, prompts=settings.prompts, max_responses=settings.max_responses, seed=config.seed)
    if bad_rows.count:
        print(f"{bad_rows.count:,} rows left out: {bad_rows.path}")
    return items


def _serve(config: Config, session: Session, items: Items, folder: Path) -> None:
    settings = config.label
    token = kept_token(folder / "token")
    with listen(settings.host, settings.port) as listening:
        port = listening.getsockname()[1]
        url = address(settings.host, port, token)
        alike = f"; {items.alike:,} more have only one response to show" if items.alike else ""
        print(f"{len(items.by_key):,} prompts to judge{alike}\n{printable(_progress(session))}\n\nJudge here: {url}")
        if not is_loopback(settings.host):
            print("Other machines can open it with that address; nothing on the way is encrypted.")
        print("Ctrl-C ends it; every judgement is saved as it is made.", flush=True)
        if settings.open_browser and is_loopback(settings.host) and _has_screen():
            webbrowser.open(url)
        app = application(session, token, host=settings.host, port=port)
        # A log of requests would hold the token.
        server = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,  # uvicorn's own closes every handler there is, and absl's takes the stream with it
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn ends, then raises what it caught
            uvicorn.Server(server).run(sockets=[listening])
    print(f"\n{printable(_progress(session))}")


def _has_screen() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _progress(session: Session) -> str:
    """Who has done what, a line each, and how far they agree."""
    found = session.progress()
    lines = [
        f"  {row['name']}: {row['judged']:,} judged"
        + (f", {row['skipped']:,} skipped" if row["skipped"] else "")
        + (f", agrees with the others on {100 * row['agrees']:.0f} % of pairs" if row["agrees"] is not None else "")
        for row in found["labelers"]
    ]
    shared = found["agreement"]
    if shared["share"] is not None:
        alphas = [
            f"Krippendorff's alpha of {what} {shared[key]:.2f}"
            for what, key in (("places", "alpha_ranks"), ("quality", "alpha_quality"))
            if shared[key] is not None
        ]
        share, prompts = f"{100 * shared['share']:.1f} % of {shared['pairs']:,} pairs", f"{shared['items']:,} prompts"
        told = f"{share} ordered alike, over {prompts}"
        lines.append("  agreement: " + ", ".join([told, *alphas]))
    return "\n".join(lines) or "  nobody has judged yet"


def _export(config: Config, store: Store, folder: Path) -> None:
    written = export(store.standing(), store.items(), folder, baseline=config.compare.baseline)
    rankings, verdicts = str(written.rankings_path), str(written.verdicts_path)
    print(f"{written.rankings:,} rankings: {rankings}")
    if written.rankings:
        own = run_folder(config)
        policy = f"run.parents={own}" if (own / "sft").exists() else "reward.policy=MODEL"
        print(f"  train on them: {_command('stage=reward', f'data={rankings}', policy, 'run.name=NAME')}")
    print(f"{written.verdicts:,} verdicts: {verdicts}")
    if written.verdicts:
        print(f"  compare by them: {_command('stage=compare', f'compare.verdicts={verdicts}', 'run.name=NAME')}")


def _command(*words: str) -> str:
    return shlex.join(["python", "-m", "rlhf", *words])


def _in_this_run(config: Config, stage: str) -> str:
    root = [f"run.root={config.run.root}"] if config.run.root != RunConfig().root else []
    return _command(stage, f"run.name={config.run.name}", *root)
