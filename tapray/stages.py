"""The stages of a job, in order, each with what it needs and what it leaves behind.

A stage is done when its folder's done.json carries the key of what went into it: the part of
the configuration it depends on and the keys of the stages before it. A done stage is not
run again; an interrupted one continues.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapray.atomic import atomic_write
from tapray.config import JobConfig, Role
from tapray.context import Job
from tapray.crops.draw import Region
from tapray.crops.splits import pretrain_regions
from tapray.errors import UserError
from tapray.runfolder import content_hash

if TYPE_CHECKING:
    from tapray.model.tap import TapNet


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

    config, inputs = job.config, job.inputs
    index = inputs.index
    job.reporter.say(inputs.events_kept())
    result = audit(index, config.crops.size, pretrain_regions(config, inputs.regions))
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
    job.tracker.dataset(job.run_id, config.name, manifest["digest"][:32], str(job.shards), "labelled crops")
    job.tracker.artifact(job.run_id, job.shards / "manifest.json", "dataset")
    return {"digest": manifest["digest"], "audit": result.as_dict(), "counts": manifest["counts"]}


def pretrain(job: Job) -> dict[str, Any]:
    """TAP pretraining; leaves model/, log.jsonl and the arrow accuracy on the test region."""
    from tapray.distributed.data import write_frames
    from tapray.model.tarrow import given_weights
    from tapray.model.weights import save_tap, weights_digest
    from tapray.pretrain.evaluate import ARROW_FLOOR, arrow_accuracy, evaluated

    config, inputs, target = job.config, job.inputs, job.folder.stage("pretrain")
    regions = {role: inputs.regions_of(role) for role in Role}
    target.mkdir(parents=True, exist_ok=True)
    frames = target / "frames"  # for this stage only
    run_id = job.child("pretrain", {"stage": "pretrain"})
    job.tracker.params(run_id, config.pretrain.model_dump(mode="json"))
    samplers = {region: evaluated(config) for role in Role for region in regions[role]}
    write_frames(inputs.movies, samplers, config, job.shards, frames, job.reporter)
    if config.pretrain.weights is None:
        net = _train(job, regions, frames, run_id)
    else:
        net = given_weights(config.pretrain.weights, config.pretrain.preset, config.channels)
        atomic_write(target / "log.jsonl", "")  # nothing was learned here
    accuracy = arrow_accuracy(config, net, regions[Role.TEST], frames)
    shutil.rmtree(frames)
    for sampler, value in accuracy.items():
        job.reporter.say(f"arrow accuracy on held-out frames, crops drawn by {sampler}: {value:.3f}")
    own = accuracy[config.pretrain.sampler.value]
    if own < ARROW_FLOOR:
        job.reporter.warn(
            "the arrow accuracy has not left 0.5: the features are not trained; pretrain longer"
        )
    save_tap(net, job.model, deltas=config.deltas, size=config.pretrain.size, arrow_accuracy=accuracy)
    job.tracker.metric_history(run_id, job.history)
    job.tracker.metrics(run_id, {f"test_arrow_{name}": value for name, value in accuracy.items()})
    job.tracker.model(run_id, job.model)
    job.tracker.finish(run_id)
    return {"arrow_accuracy": own, "arrow_accuracies": accuracy, "weights_sha256": weights_digest(net)}


def _train(job: Job, regions: dict[Role, list[Region]], frames: Path, run_id: str) -> TapNet:
    """Trains, while records and pictures go to MLflow as they come."""
    from tapray.distributed.train import pretrain as run
    from tapray.pretrain.checkpoints import Checkpoints
    from tapray.pretrain.frames import open_stream
    from tapray.pretrain.pictures import Pictures

    config, target = job.config, job.folder.stage("pretrain")
    settings, folder = config.pretrain, target / "checkpoints" / job.keys["pretrain"][:12]
    stream = open_stream(frames, regions[Role.VAL], config, settings.sampler, config.seed)
    saved = Checkpoints(folder, settings.keep_checkpoints)
    pictures = Pictures(stream, settings, config.channels, saved, target / "attribution")
    live = job.tracker.live(run_id)

    def show(record: dict[str, Any]) -> None:
        live(record)
        pictures.draw()

    net = run(config, regions, frames, folder, target / "log.jsonl", job.reporter, show)
    pictures.draw()
    if pictures.folder.exists():  # not where the disk was full, or epochs were too few
        job.tracker.artifact(run_id, pictures.folder, "attribution")
    return net


def features(job: Job) -> dict[str, Any]:
    """Dense features of all labelled crops under every frozen encoder."""
    from tapray.distributed.features import write_features

    write_features(job.config, job.shards, job.model, job.features, job.reporter)
    return {"bytes": sum(path.stat().st_size for path in job.features.glob("*.npy"))}


def study(job: Job) -> dict[str, Any]:
    """Search per cell on validation, then every seed once on test."""
    from tapray.distributed import tune
    from tapray.study.cells import cells
    from tapray.study.results import read_records

    config, target = job.config, job.study
    target.mkdir(parents=True, exist_ok=True)
    every = cells(config)
    with job.reporter.task("search trials", len(every) * config.study.trials, "trial") as progress:
        progress.update(len(read_records(target, "trial")))  # of a study that was stopped
        tell = job.teller(progress.advance, "trial", "val_ap")
        trials = tune.search(config, job.features, job.model, every, target, tell)
    chosen = tune.choose(trials, every)
    named = {cell.name: params for cell, params in chosen.items()}
    atomic_write(target / "chosen.json", json.dumps(named, indent=1))
    with job.reporter.task("final runs", len(every) * config.study.seeds, "run") as progress:
        progress.update(len(read_records(target, "run")))
        tell = job.teller(progress.advance, "run", "ap")
        runs = tune.final_runs(config, job.features, job.model, chosen, target, tell)
    for kind, records in (("search trials", trials), ("final runs", runs)):
        if failed := [record for record in records if record["status"] == "failed"]:
            first = f"{failed[0]['cell']}: {failed[0]['error']}"
            job.reporter.warn(f"{len(failed)} of {len(records)} {kind} failed and do not count ({first})")
    job.tracker.sweep(job.run_id)
    return {"trials": len(trials), "runs": len(runs)}


def report(job: Job) -> dict[str, Any]:
    """Tables and figures, also logged to MLflow, and the model that `tapray predict` loads."""
    from tapray.detector import load_model, save_model, set_threshold
    from tapray.report import write_report
    from tapray.study.results import collect
    from tapray.threshold import choose_threshold

    audit = job.folder.facts("shard")["audit"]
    leaky = max(audit["train"], audit["val"], audit["pretrain"]) > 0
    found = collect(job.study, job.folder.facts("pretrain"), leaky=leaky)
    target = job.folder.stage("report")
    paths = write_report(target, found.results, found.trials, found.predictions, audit, job.history)
    model = save_model(job.config, found, job.study, job.model, job.folder.stage("model"))
    if choice := choose_threshold(load_model(model), job.inputs, job.reporter):
        set_threshold(model, choice.threshold, choice.as_dict())
        told = f"{choice.named} of {choice.events} events and {choice.false} false ones"
        job.reporter.say(f"the validation part searched: at threshold {choice.threshold:.3g} it names {told}")
    for path in paths:
        job.tracker.artifact(job.run_id, path, "report")
    job.tracker.model(job.run_id, model)
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
_SHARD += ("study.negatives_per_event", "study.budgets", "study.budget_unit")

STAGES: dict[str, Stage] = {
    "simulate": Stage(simulate, ("simulate",), ()),
    "shard": Stage(shard, _SHARD, ("simulate", "files")),
    "pretrain": Stage(pretrain, ("pretrain", "seed"), ("shard",)),
    "features": Stage(features, ("study.inits", "study.random_draws"), ("pretrain",)),
    "study": Stage(study, ("study", "seed"), ("features",)),
    "report": Stage(report, ("name",), ("study",)),
}


def stage_key(config: JobConfig, name: str, before: dict[str, str]) -> str:
    """Hash of what a stage depends on; `before` holds the keys of the stages before it."""
    data = config.model_dump(mode="json")
    picked = {}
    for section in STAGES[name].sections:
        head, _, key = section.partition(".")
        picked[section] = data[head][key] if key else data[head]
    after = [before.get(other) for other in STAGES[name].after]
    return content_hash({"stage": name, "config": picked, "after": after})
