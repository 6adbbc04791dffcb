"""The stages of a job, in order, each with what it needs and what it leaves behind.

A stage is done when its folder's done.json carries the key of what went into it: the part of
the configuration it depends on and the keys of the stages before it. A done stage is not
run again; an interrupted one continues.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tapray.atomic import atomic_write
from tapray.config import JobConfig, Role
from tapray.context import Job
from tapray.crops.budgets import count_events
from tapray.crops.splits import pretrain_regions
from tapray.errors import UserError
from tapray.insights import calibrate, errors
from tapray.pretraining import pretrain
from tapray.runfolder import content_hash
from tapray.study.cells import Cell, cells


def simulate(job: Job) -> dict[str, Any]:
    """Writes simulated movies, where the configuration asks for them."""
    from tapray.data.simulate import write_simulation

    assert job.config.simulate is not None
    target = job.folder.stage("simulate")
    job.reporter.say(f"simulating {job.config.simulate.n_movies} movies")
    shutil.rmtree(target / "movies", ignore_errors=True)  # of a job stopped before this stage was done
    entries = write_simulation(job.config.simulate, target / "movies")
    listed = [entry.model_dump(mode="json") for entry in entries]
    atomic_write(target / "movies.json", json.dumps(listed, indent=1))
    return {"movies": len(entries)}


def shard(job: Job) -> dict[str, Any]:
    """Movies to labelled crop pairs in Parquet, with manifest and leakage audit."""
    import pyarrow as pa

    from tapray.crops.audit import audit
    from tapray.crops.shards import write_table
    from tapray.distributed.data import write_shards
    from tapray.model.dense import reach

    config, inputs = job.config, job.inputs
    index = inputs.index
    job.reporter.say(inputs.events_kept())
    beyond = reach(config.pretrain.preset) if config.crops.features == "frame" else 0
    result = audit(index, config.crops.size, pretrain_regions(config, inputs.regions), beyond)
    shares = f"train {result.train:.1%}, validation {result.val:.1%}, pretraining {result.pretrain:.1%}"
    job.reporter.say(f"leakage audit: share of {result.n_test} test crops overlapping {shares}")
    if result.leaks and not config.split.allow_leak:
        raise UserError(
            f"test crops overlap what is trained on ({shares})",
            where=f"split.kind {config.split.kind.value}",
            todo="use a split that shares nothing, or set split.allow_leak: true to study the leak",
        )
    records = write_shards(inputs.movies, index, config.crops, job.shards, job.reporter)
    write_table(pa.Table.from_pandas(index, preserve_index=False), job.shards / "index.parquet")
    manifest = inputs.manifest(records, result.as_dict())
    atomic_write(job.shards / "manifest.json", json.dumps(manifest, indent=1))
    job.note_data()
    events = {role.value: count_events(index[index.split == role.value]) for role in Role}
    facts = {"audit": result.as_dict(), "counts": manifest["counts"], "events": events}
    return {"digest": manifest["digest"], **facts}


def features(job: Job) -> dict[str, Any]:
    """Dense features of all labelled crops under every frozen encoder, from the cache where it has them."""
    from tapray.distributed.features import Sources, write_features

    sources = Sources(job.config, job.shards.resolve(), job.inputs.movies, job.model.resolve())
    found = write_features(
        sources, job.features, job.feature_cache, job.reporter, anew="features" in job.forced
    )
    job.reporter.say(f"features: {found['computed']} arrays computed, {found['cached']} were in the cache")
    return found


def study(job: Job) -> dict[str, Any]:
    """Search per cell on validation, then every seed once on test."""
    with kept_features(job):
        return _study(job)


@contextmanager
def kept_features(job: Job) -> Iterator[None]:
    """Within the block the features are in the cache: what was evicted meanwhile is made again."""
    from tapray.study.store import FeatureStore

    store = FeatureStore(job.features)
    with ExitStack() as stack:

        def hold() -> None:
            stack.enter_context(job.feature_cache.held([path.stem for path in store.paths().values()]))

        hold()
        if not store.complete():
            features(job)
            hold()  # they may have other names now
        yield


def _study(job: Job) -> dict[str, Any]:
    from tapray.distributed import tune
    from tapray.distributed.journal import journal
    from tapray.study.choice import choose
    from tapray.study.results import read_records

    config, target = job.config, job.study
    target.mkdir(parents=True, exist_ok=True)
    every = cells(config)
    number = len(every) * config.study.trials
    with (
        job.reporter.task("search trials", number, "trial") as progress,
        job.teller(progress, "trial", "val_ap") as tell,
    ):
        tell(read_records(target, "trial"))  # of a study that was stopped
        trials = tune.search(config, job.features, job.model, every, target, tell)
    atomic_write(target / "optuna.log", journal(config, every, trials))
    chosen = choose(config, trials, every)
    named = {cell.name: params for cell, params in chosen.items()}
    atomic_write(target / "chosen.json", json.dumps(named, indent=1))
    with (
        job.reporter.task("final runs", len(chosen) * config.study.seeds, "run") as progress,
        job.teller(progress, "run", "ap") as tell,
    ):
        tell(read_records(target, "run"))
        runs = tune.final_runs(config, job.features, job.model, chosen, target, tell)
    for warning in failures(trials, runs, every):
        job.reporter.warn(warning)
    job.tracker.sweep(job.run_id)
    return {"trials": len(trials), "runs": len(runs)}


def failures(
    trials: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], cells: Sequence[Cell]
) -> Iterator[str]:
    """What a study has lost, in words."""
    for kind, records in (("search trials", trials), ("final runs", runs)):
        if failed := [record for record in records if record["status"] == "failed"]:
            first = f"{Cell.of(failed[0]).name}: {failed[0]['error']}"
            yield f"{len(failed)} of {len(records)} {kind} failed and do not count ({first})"
    done = {Cell.of(run) for run in runs if run["status"] == "done"}
    if missing := [cell.name for cell in cells if cell not in done]:
        yield f"the tables are without {', '.join(missing)}, of which nothing ended well"


def explain(job: Job) -> dict[str, Any]:
    """Attribution and feature maps."""
    from tapray.explaining import explain  # which needs captum and much else

    with kept_features(job):
        return explain(job)


def report(job: Job) -> dict[str, Any]:
    """Tables and figures, also logged to MLflow, and the model that `tapray predict` loads."""
    import pandas as pd

    from tapray.detector import load_model, save_model, set_threshold
    from tapray.registry import register
    from tapray.report import LOOKED, write_report
    from tapray.report.further import in_short
    from tapray.serving import Served, example
    from tapray.threshold import choose_threshold

    config, audit, found = job.config, job.folder.facts("shard")["audit"], job.results
    target = job.folder.stage("report")
    stages = {name: job.folder.stage(name) for name in LOOKED}
    tables = (found.results, found.trials, found.predictions)
    about, sharded = job.folder.about(config), job.folder.facts("shard")
    known = {"name": config.name, "counts": sharded["counts"], "events": sharded.get("events", {})}
    paths = write_report(target, *tables, audit, job.history, stages, about, **known)
    model = save_model(config, found, job.study, job.model, job.folder.stage("model"))
    if choice := choose_threshold(load_model(model), job.inputs, job.reporter):
        set_threshold(model, choice.threshold, choice.as_dict())
        told = f"{choice.named} of {choice.events} events and {choice.false} false ones"
        job.reporter.say(f"the validation part searched: at threshold {choice.threshold:.3g} it names {told}")
    for path in paths:
        job.tracker.artifact(job.run_id, path, "report")
    summary = pd.read_csv(target / "summary.csv")
    job.tracker.note(job.run_id, in_short(summary))
    job.tracker.show(summary[["init", "head", "budget", "split"]].assign(study=job.name).to_dict("records"))
    job.tracker.model(job.run_id, model)
    pairs = example(load_model(model))
    answer = Served(load_model(model)).predict(pairs)
    register(job.tracker, job.run_id, config.name, model, pairs, answer)
    means = found.results.groupby(["init", "head", "budget"], as_index=False)["ap"].mean()
    names = "ap_" + means["init"] + "_" + means["head"] + "_" + means["budget"].astype(str)
    job.tracker.metrics(job.run_id, dict(zip(names, means["ap"], strict=True)))
    return {"files": [path.name for path in paths]}


@dataclass(frozen=True)
class Stage:
    """A stage's work and the sections of the configuration it depends on."""

    work: Callable[[Job], dict[str, Any]]
    sections: tuple[str, ...]
    after: tuple[str, ...]


_SHARD: tuple[str, ...] = ("movies", "crops", "split", "seed", "pretrain.size", "pretrain.include")
_SHARD += ("pretrain.preset",)  # of which the receptive field is audited
_SHARD += ("study.negatives_per_event", "study.budgets", "study.budget_unit")

STAGES: dict[str, Stage] = {
    "simulate": Stage(simulate, ("simulate",), ()),
    "shard": Stage(shard, _SHARD, ("simulate", "files")),
    "pretrain": Stage(pretrain, ("pretrain", "seed"), ("shard",)),
    "features": Stage(
        features, ("study.inits", "study.random_draws", "study.search", "study.fixed"), ("pretrain",)
    ),
    "study": Stage(study, ("study", "seed"), ("features",)),
    "calibrate": Stage(calibrate, (), ("study",)),
    "errors": Stage(errors, (), ("study",)),
    "explain": Stage(explain, (), ("features",)),
    "report": Stage(report, ("name",), ("calibrate", "errors", "explain")),
}


def needed(name: str) -> set[str]:
    """A stage and all that it needs, and they in turn."""
    found, waiting = set[str](), [name]
    while waiting:
        if (one := waiting.pop()) in STAGES and one not in found:
            found.add(one)
            waiting += STAGES[one].after
    return found


def stage_key(config: JobConfig, name: str, before: dict[str, str]) -> str:
    """Hash of what a stage depends on; `before` holds the keys of the stages before it."""
    data = config.model_dump(mode="json")
    picked = {}
    for section in STAGES[name].sections:
        head, _, key = section.partition(".")
        picked[section] = data[head][key] if key else data[head]
    after = [before.get(other) for other in STAGES[name].after]
    return content_hash({"stage": name, "config": picked, "after": after})
