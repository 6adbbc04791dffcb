"""Runs a job: stage after stage, skipping what is done, in one run folder and one MLflow run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tapray.config import Init, JobConfig
from tapray.configfile import resolved
from tapray.console import Reporter
from tapray.context import Job
from tapray.crops.collect import Inputs
from tapray.distributed.cluster import joined, session
from tapray.errors import UserError
from tapray.locations import state
from tapray.mirror import Mirror
from tapray.model.backbones import build_backbone
from tapray.model.tarrow import given_weights
from tapray.provenance import git_commit
from tapray.redaction import redact
from tapray.runfolder import RunFolder, content_hash
from tapray.stages import STAGES, needed, stage_key
from tapray.stores import default_uri
from tapray.tracking import Tracker


def run_job(
    config: JobConfig, *, until: str = "report", force: Sequence[str] = (), reporter: Reporter | None = None
) -> Path:
    """Runs the stages of a job up to `until`; returns the run folder.

    A finished stage is not run again; a stage named in `force`, and all that follow it, are. Of a job
    that a user's fault ends before its first shards were written, nothing is left.

    Raises:
        UserError: a fault in the configuration, the movies or the annotations.
    """
    reporter = reporter or Reporter()
    config = _with_store(resolved(config, Path.cwd()))
    names = [name for name in STAGES if name != "simulate" or config.simulate is not None]
    _check_names(names, until, force)
    build_backbone(config.pretrain.preset)  # an unknown name is found before anything is written
    if config.pretrain.weights is not None:
        given_weights(config.pretrain.weights, config.pretrain.preset, config.channels)
    folder, keys = RunFolder(config.out), _keys(config)
    if config.mirror and Path(str(config.mirror)).is_relative_to(folder.out):
        raise UserError("lies in the run folder", where="mirror", todo="name another place for the copy")
    mirror = Mirror(folder.out, config.mirror) if config.mirror else None
    if mirror:
        mirror.probe()
        if n := mirror.pull():
            reporter.say(f"taken from {config.mirror}", files=n)
    given = None
    if config.simulate is None and ("shard" in force or not folder.is_done("shard", keys["shard"])):
        given = Inputs(config, config.movies)
        _ = given.index  # what the user named is read before anything is written or Ray is started
    fresh = not (folder.out / "config.yaml").exists()
    folder.claim(config)
    try:
        with mirror.kept() if mirror else nullcontext():
            _run_stages(config, folder, names, keys, until, force, reporter, given)
    except UserError:
        if fresh and not any(folder.facts(name) for name in names if name != "simulate"):
            shutil.rmtree(folder.out)  # else it would belong to a configuration that cannot run
        raise
    finally:
        folder.release()
    return folder.out


def _check_names(names: Sequence[str], until: str, force: Sequence[str]) -> None:
    """Raises UserError where a stage that the user names is unknown, or forced and not needed."""
    for option, stages in (("--force", force), ("until", (until,))):
        for name in set(stages) - set(names):
            todo = f"use one of {', '.join(names)}"
            raise UserError(f"unknown stage '{name}'", where=option, todo=todo)
    reached = needed(until)
    for name in force:
        if name not in reached:
            todo = "use a command that reaches it"
            what = f"stage '{name}' is not needed by {until}, the last of this command"
            raise UserError(what, where="--force", todo=todo)


def _run_stages(
    config: JobConfig,
    folder: RunFolder,
    names: list[str],
    keys: dict[str, str],
    until: str,
    force: Sequence[str],
    reporter: Reporter,
    given: Inputs | None,
) -> None:
    stale = _stale(folder, names, keys, force)
    reached = needed(until)
    done = {name for name in names if name not in stale and folder.is_done(name, keys[name])}
    todo = [name for name in names if name in reached - done]
    uri = config.tracking.uri or default_uri(folder.out)
    if not todo:
        _forget(folder, stale)
        reporter.say("every stage is done", folder=_shown(folder.out))
        _show(folder, until, reporter)
        return
    tracker = Tracker.open(uri, config.tracking.experiment)  # before anything is removed: it may be away
    run_id = ""
    try:
        with tracker.answering(), session(config.ray):
            if joined(config.ray):
                from tapray.distributed.preflight import preflight

                found = preflight(config, folder.out, uri, trains="pretrain" in todo)
                reporter.say("cluster joined", machines=found)
            run_id = _run(tracker, config, folder, keys)
            tracker.params(run_id, config.model_dump(mode="json", exclude={"movies", "out"}))
            tracker.artifact(run_id, folder.out / "config.yaml", "config")
            job = Job(config, folder, reporter, tracker, run_id, keys, given, force)
            _forget(folder, stale)
            if "shard" in done:
                job.note_data()
            for name in todo:
                _work(job, name)
    except BaseException as error:
        if run_id:  # else the cluster was found wanting, or did not start
            tracker.abandon(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.finish(run_id)
    _show(folder, until, reporter)
    reporter.say(f"MLflow store: {redact(uri)}")


def _work(job: Job, name: str) -> None:
    job.reporter.stage(name)
    job.folder.begin(name, job.keys[name])
    start = time.monotonic()
    facts = STAGES[name].work(job)
    job.folder.mark_done(name, job.keys[name], seconds=round(time.monotonic() - start, 1), **facts)


def _run(tracker: Tracker, config: JobConfig, folder: RunFolder, keys: dict[str, str]) -> str:
    """The MLflow run of a job, made or opened again."""
    place = str(config.mirror or folder.out)
    identity = f"{folder.out.name}/{content_hash({'folder': place, **keys})}"
    tags = {"kind": "job", "split": config.split.kind.value}
    if commit := git_commit():
        tags["mlflow.source.git.commit"] = commit
    return tracker.run(config.name, identity, None, tags)


def _stale(folder: RunFolder, names: list[str], keys: dict[str, str], force: Sequence[str]) -> list[str]:
    """The stages whose results must go: named in `force` or made from other inputs, and all that need them.

    Finished stages that need an unfinished one go too. What an unfinished stage has left of the same inputs
    is kept: it continues from there.
    """
    found, stale, unfinished = list[str](), set[str](), set[str]()
    for name in names:
        done, before = folder.is_done(name, keys[name]), set(STAGES[name].after)
        if name in force or (folder.facts(name) and not done) or before & stale:
            stale.add(name)
        if name in stale or (done and before & unfinished):
            found.append(name)
            done = False
        if not done:
            unfinished.add(name)
    return found


def _forget(folder: RunFolder, stale: Sequence[str]) -> None:
    for name in stale:
        folder.forget(name)
    if not folder.facts("report"):
        folder.forget("model")  # the report stage writes it


def _with_store(config: JobConfig) -> JobConfig:
    """The configuration with the store that MLFLOW_TRACKING_URI names, unless it names one itself."""
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": uri})})


def _keys(config: JobConfig) -> dict[str, str]:
    keys = {"files": _files(config)}
    for name in STAGES:
        keys[name] = stage_key(config, name, keys)
    return keys


def _files(config: JobConfig) -> str:
    """What the movies' and annotations' files are like: a changed file is a new input.

    Their content is hashed once, for the manifest; hashing it at every start would read all pixels.
    """
    paths = [
        path for movie in config.movies for path in (movie.path, *(note.path for note in movie.annotations))
    ]
    imagenet = config.study.imagenet if Init.IMAGENET in config.study.inits else None
    weights = [path for path in (config.pretrain.weights, imagenet) if path is not None]
    return content_hash([state(path) for path in [*paths, *weights]])


def _show(folder: RunFolder, until: str, reporter: Reporter) -> None:
    """The table and where to look further."""
    if until != "report":
        return
    import pandas as pd

    from tapray.report import result_table

    reporter.table(result_table(pd.read_csv(folder.stage("report") / "summary.csv")))
    shown = _shown(folder.out)
    reporter.say(f"report:        {shown}/report/report.html")
    reporter.say(f"compare runs:  tapray ui {shown}")
    reporter.say(f"find events:   tapray predict {shown}/model MOVIE.tif")


def _shown(path: Path) -> str:
    """A path as short as the user would type it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
