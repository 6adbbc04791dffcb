"""Runs a job: stage after stage, skipping what is done, in one run folder and one MLflow run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tapray.config import JobConfig
from tapray.console import Reporter
from tapray.distributed.cluster import session
from tapray.errors import UserError
from tapray.runfolder import RunFolder, content_hash
from tapray.stages import STAGES, Job, stage_key
from tapray.tracking import Tracker, default_uri, redact


def run_job(
    config: JobConfig, *, until: str = "report", force: Sequence[str] = (), reporter: Reporter | None = None
) -> Path:
    """Runs the stages of a job up to `until`; returns the run folder.

    A finished stage is not run again; a stage named in `force`, and all that follow it, are.

    Raises:
        UserError: a fault in the configuration, the movies or the annotations.
    """
    reporter = reporter or Reporter()
    names = [name for name in STAGES if name != "simulate" or config.simulate is not None]
    for name in force:
        if name not in names:
            raise UserError(f"unknown stage '{name}'", where="--force", todo=f"use one of {', '.join(names)}")
    _check_inputs(config)
    folder = RunFolder(config.out)
    folder.claim(config)
    try:
        _run_stages(config, folder, names[: names.index(until) + 1], force, reporter)
    finally:
        folder.release()
    return folder.out


def _check_inputs(config: JobConfig) -> None:
    """Opens what the user named before anything is written or Ray is started."""
    from tapray.crops.splits import split_regions
    from tapray.data.annotations import read_places
    from tapray.data.movies import open_movie

    shapes = {}
    for entry in config.movies:
        movie = open_movie(entry.path, entry.name)
        shapes[entry.name] = movie.shape
        read_places(entry, movie)
    split_regions(config, shapes, {entry.name: entry.role for entry in config.movies})


def _run_stages(
    config: JobConfig, folder: RunFolder, names: list[str], force: Sequence[str], reporter: Reporter
) -> None:
    keys = _keys(config)
    redo = names[min((names.index(name) for name in force if name in names), default=len(names)) :]
    for name in redo:
        folder.forget(name)
    todo = [name for name in names if not folder.is_done(name, keys[name])]
    for name in todo[1:]:  # what follows a stage that is run anew is stale
        if folder.facts(name):
            folder.forget(name)
    if not todo:
        reporter.say("every stage is done", folder=_shown(folder.out))
        _show(folder, names, reporter)
        return
    uri = config.tracking.uri or default_uri(folder.out)
    tracker = Tracker.open(uri, config.tracking.experiment)
    job = Job(config, folder, reporter, tracker, keys=keys)
    job.run_id = tracker.run(config.name, f"{folder.out.name}/{content_hash(keys)}", None, {"kind": "job"})
    tracker.params(job.run_id, config.model_dump(mode="json", exclude={"movies", "out"}))
    tracker.artifact(job.run_id, folder.out / "config.yaml", "config")
    try:
        with session(config.ray):
            for name in todo:
                reporter.stage(name)
                facts = STAGES[name].work(job)
                folder.mark_done(name, keys[name], **facts)
    except BaseException:
        tracker.sweep(job.run_id)
        tracker.finish(job.run_id, "FAILED")
        raise
    tracker.finish(job.run_id)
    _show(folder, names, reporter)
    reporter.say(f"MLflow store: {redact(uri)}")


def _keys(config: JobConfig) -> dict[str, str]:
    keys: dict[str, str] = {}
    for name in STAGES:
        keys[name] = stage_key(config, name, keys)
    return keys


def _show(folder: RunFolder, names: list[str], reporter: Reporter) -> None:
    """The table and where to look further."""
    if "report" not in names:
        return
    import pandas as pd

    from tapray.report import print_table

    target = folder.stage("report")
    print_table(reporter._console, pd.read_csv(target / "summary.csv"))
    shown = _shown(folder.out)
    reporter.say(f"report:        {shown}/report/report.md")
    reporter.say(f"compare runs:  tapray ui {shown}")
    reporter.say(f"find events:   tapray predict {shown}/model MOVIE.tif")


def _shown(path: Path) -> str:
    """A path as short as the user would type it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
