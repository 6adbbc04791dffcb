"""The stages of a job, in order, each with what it needs and what it leaves behind.

A stage is done when its folder's done.json carries the key of what went into it: the part of
the configuration it depends on and the keys of the stages before it. A done stage is not
run again; an interrupted one continues.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tapray.config import JobConfig, MovieEntry, Role
from tapray.console import Reporter
from tapray.crops.draw import Region
from tapray.crops.splits import SplitRegion, pretrain_regions, split_regions
from tapray.data.movies import Movie, open_movie
from tapray.errors import UserError
from tapray.runfolder import RunFolder, content_hash
from tapray.tracking import Tracker


@dataclass
class Job:
    """What all stages of one job share."""

    config: JobConfig
    folder: RunFolder
    reporter: Reporter
    tracker: Tracker
    run_id: str = ""
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def shards(self) -> Path:
        return self.folder.stage("shard")

    @property
    def model(self) -> Path:
        return self.folder.stage("pretrain") / "model"

    @property
    def features(self) -> Path:
        return self.folder.stage("features")

    @property
    def study(self) -> Path:
        return self.folder.stage("study")

    @cached_property
    def entries(self) -> list[MovieEntry]:
        """The movies of the configuration, or those the simulator wrote."""
        if self.config.simulate is None:
            return list(self.config.movies)
        listed = json.loads((self.folder.stage("simulate") / "movies.json").read_text())
        return [MovieEntry.model_validate(item) for item in listed]

    @cached_property
    def movies(self) -> dict[str, Movie]:
        return {entry.name: open_movie(entry.path, entry.name) for entry in self.entries}

    @cached_property
    def regions(self) -> list[SplitRegion]:
        shapes = {name: movie.shape for name, movie in self.movies.items()}
        return split_regions(self.config, shapes, {entry.name: entry.role for entry in self.entries})

    def regions_of(self, role: Role) -> list[Region]:
        """The regions of a split; of a split that shuffles crops, the whole movies."""
        if role is Role.TRAIN:
            return pretrain_regions(self.config, self.regions)
        return [item.region for item in self.regions if item.role in (role, None)]


def simulate(job: Job) -> dict[str, Any]:
    """Writes simulated movies, where the configuration asks for them."""
    from tapray.data.simulate import write_simulation

    assert job.config.simulate is not None
    target = job.folder.stage("simulate")
    job.reporter.say(f"simulating {job.config.simulate.n_movies} movies")
    entries = write_simulation(job.config.simulate, target / "movies")
    listed = [entry.model_dump(mode="json") for entry in entries]
    (target / "movies.json").write_text(json.dumps(listed, indent=1))
    return {"movies": len(entries)}


def shard(job: Job) -> dict[str, Any]:
    """Movies to labelled crop pairs in Parquet, with manifest and leakage audit."""
    from tapray.crops.audit import audit
    from tapray.crops.shards import write_table
    from tapray.distributed.data import write_shards

    import pyarrow as pa

    config = job.config
    index = _index(job)
    result = audit(index, config.crops.size, pretrain_regions(config, job.regions))
    shares = f"train {result.train:.1%}, validation {result.val:.1%}, pretraining {result.pretrain:.1%}"
    job.reporter.say(f"leakage audit: share of {result.n_test} test crops overlapping {shares}")
    if result.leaks and not config.split.allow_leak:
        raise UserError(
            f"test crops overlap what is trained on ({shares})",
            where=f"split.kind {config.split.kind.value}",
            todo="use a split that shares nothing, or set split.allow_leak: true to study the leak",
        )
    records = write_shards(
        list(job.movies.values()), index, config.crops, config.pretrain.size, job.shards, job.reporter
    )
    write_table(pa.Table.from_pandas(index, preserve_index=False), job.shards / "index.parquet")
    manifest = _manifest(job, index, records, result.as_dict())
    (job.shards / "manifest.json").write_text(json.dumps(manifest, indent=1))
    job.tracker.dataset(job.run_id, config.name, manifest["digest"][:32], str(job.shards), "labelled crops")
    job.tracker.artifact(job.run_id, job.shards / "manifest.json", "dataset")
    return {"digest": manifest["digest"], "audit": result.as_dict(), "counts": manifest["counts"]}


def _index(job: Job) -> pd.DataFrame:
    """The index of all movies' labelled crops; checks that every split holds every class."""
    from tapray.crops.sites import labelled_crops
    from tapray.data.annotations import open_event_masks, read_places

    config, parts = job.config, []
    for number, entry in enumerate(job.entries):
        movie = job.movies[entry.name]
        own = [item for item in job.regions if item.region.movie == entry.name]
        rng = np.random.default_rng([config.seed, 3, number])
        masks = open_event_masks(entry, movie)
        crops = labelled_crops(read_places(entry, movie), own, config.crops, rng, masks)
        parts.append(crops.assign(movie=entry.name, group=entry.name + ":" + crops.group.astype(str)))
    index = pd.concat(parts, ignore_index=True).sort_values(["movie", "t"], kind="stable", ignore_index=True)
    index["group"] = pd.factorize(index.group)[0]
    index.insert(0, "crop_id", np.arange(len(index)))
    for role in Role:
        found = set(index.loc[index.split == role.value, "label"])
        for label in range(config.crops.classes):
            if label not in found:
                kind = (
                    "known negatives"
                    if label == 0
                    else ("events" if config.crops.classes == 2 else ["", "divisions", "deaths"][label])
                )
                raise UserError(
                    f"the {role.value} split holds no {kind}",
                    where="split",
                    todo="change its order, fractions or roles, or annotate more",
                )
    from tapray.crops.budgets import draw_budget

    draw_budget(index, max(config.study.budgets), config.study.negatives_per_event, 0)
    return index


def _manifest(
    job: Job, index: pd.DataFrame, records: list[dict[str, Any]], audited: dict[str, float]
) -> dict[str, Any]:
    config = job.config
    movies = {
        name: {
            "sha256": movie.fingerprint(),
            "shape": movie.shape,
            "dtype": str(movie.dtype),
            "path": str(movie.path),
        }
        for name, movie in job.movies.items()
    }
    counts = index.groupby(["split", "label"]).size()
    body = {
        "movies": movies,
        "regions": [{"role": item.role, **vars(item.region)} for item in job.regions],
        "crops": config.crops.model_dump(mode="json"),
        "split": config.split.model_dump(mode="json"),
        "negatives_per_event": config.study.negatives_per_event,
        "counts": {f"{split}/{label}": int(n) for (split, label), n in counts.items()},
        "audit": audited,
        "index_sha256": content_hash(index.to_csv(index=False)),
        "seed": config.seed,
    }
    without_paths = {**body, "movies": {name: facts["sha256"] for name, facts in movies.items()}}
    return {**body, "digest": content_hash(without_paths), "shards": records}


def pretrain(job: Job) -> dict[str, Any]:
    """TAP pretraining; leaves model/, log.jsonl and the arrow accuracy on the test region."""
    from tapray.distributed.train import pretrain as run
    from tapray.model.weights import save_tap
    from tapray.pretrain.evaluate import arrow_accuracy

    config, target = job.config, job.folder.stage("pretrain")
    target.mkdir(parents=True, exist_ok=True)
    regions = {role: job.regions_of(role) for role in (Role.TRAIN, Role.VAL)}
    name = f"tap-{job.keys['pretrain'][:12]}"
    net = run(
        config, job.movies, regions, job.shards, target / "ray", name, target / "log.jsonl", job.reporter
    )
    accuracy = arrow_accuracy(config, net, job.movies, job.regions_of(Role.TEST), job.shards)
    for sampler, value in accuracy.items():
        job.reporter.say(f"arrow accuracy on held-out frames, crops drawn by {sampler}: {value:.3f}")
    if accuracy[config.pretrain.sampler.value] < 0.55:
        job.reporter.warn(
            "the arrow accuracy has not left 0.5: the features are not trained; pretrain longer"
        )
    save_tap(net, job.model, delta=config.crops.delta, size=config.pretrain.size, arrow_accuracy=accuracy)
    run_id = job.tracker.run("pretrain", f"{job.keys['pretrain']}", job.run_id, {"stage": "pretrain"})
    job.tracker.params(run_id, config.pretrain.model_dump(mode="json"))
    job.tracker.metric_history(run_id, history(job))
    job.tracker.metrics(run_id, {f"test_arrow_{name}": value for name, value in accuracy.items()})
    job.tracker.model(run_id, job.model)
    job.tracker.finish(run_id)
    return {"arrow_accuracy": accuracy[config.pretrain.sampler.value], "arrow_accuracies": accuracy}


def history(job: Job) -> list[dict[str, float]]:
    """The learning curve of pretraining."""
    path = job.folder.stage("pretrain") / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def features(job: Job) -> dict[str, Any]:
    """Dense features of all labelled crops under every frozen encoder."""
    from tapray.distributed.features import write_features

    write_features(job.config, job.shards, job.model, job.features, job.reporter)
    return {"bytes": sum(path.stat().st_size for path in job.features.glob("*.npy"))}


def study(job: Job) -> dict[str, Any]:
    """Search per cell on validation, then every seed once on test."""
    from tapray.distributed import tune
    from tapray.study.cells import cells

    config, target = job.config, job.study
    target.mkdir(parents=True, exist_ok=True)
    every = cells(config)
    with job.reporter.task("search trials", len(every) * config.study.trials, "trial") as progress:
        tell = _teller(job, progress.advance, "trial", "val_ap")
        trials = tune.search(config, job.features, job.model, every, target, tell)
    chosen = tune.choose(trials, every)
    (target / "chosen.json").write_text(
        json.dumps({cell.name: params for cell, params in chosen.items()}, indent=1)
    )
    with job.reporter.task("final runs", len(every) * config.study.seeds, "run") as progress:
        tell = _teller(job, progress.advance, "run", "ap")
        runs = tune.final_runs(config, job.features, job.model, chosen, target, tell)
    job.tracker.sweep(job.run_id)
    return {"trials": len(trials), "runs": len(runs)}


def _teller(
    job: Job, advance: Callable[..., None], kind: str, metric: str
) -> Callable[[dict[str, Any]], None]:
    """Logs a finished trial or run to MLflow and moves the progress bar."""
    factors = ("init", "head", "budget", "seed", "trial", "learning_rate", "weight_decay", "dropout")

    def tell(record: dict[str, Any]) -> None:
        number = record.get("trial" if kind == "trial" else "seed")
        name = f"{kind} {record['init']} {record['head']} {record['budget']} #{number}"
        run_id = job.tracker.run(
            name, f"{job.keys['study']}/{name}", job.run_id, {"stage": "study", "kind": kind}
        )
        job.tracker.params(run_id, {key: record[key] for key in factors if key in record})
        values = {
            key: value for key, value in record.items() if isinstance(value, float) and key not in factors
        }
        job.tracker.metrics(run_id, values)
        job.tracker.finish(run_id)
        advance(1, **{metric: record[metric]})

    return tell


def report(job: Job) -> dict[str, Any]:
    """Tables and figures, also logged to MLflow, and the model that `tapray predict` loads."""
    from tapray.predict import save_model
    from tapray.report import write_report
    from tapray.study.results import collect

    target = job.folder.stage("report")
    found = collect(job.study, job.folder.facts("pretrain"), leaky=_leaky(job))
    paths = write_report(
        target,
        found.results,
        found.trials,
        found.predictions,
        job.folder.facts("shard")["audit"],
        history(job),
    )
    model = save_model(job.config, found, job.study, job.model, job.folder.stage("model"))
    for path in paths:
        job.tracker.artifact(job.run_id, path, "report")
    job.tracker.model(job.run_id, model)
    best = found.results.groupby(["init", "head", "budget"]).ap.mean()
    job.tracker.metrics(
        job.run_id,
        {f"ap_{init}_{head}_{budget}": float(value) for (init, head, budget), value in best.items()},
    )
    return {"files": [path.name for path in paths]}


def _leaky(job: Job) -> bool:
    shares = job.folder.facts("shard")["audit"]
    return max(shares["train"], shares["val"], shares["pretrain"]) > 0


@dataclass(frozen=True)
class Stage:
    """A stage's work and the sections of the configuration it depends on."""

    work: Callable[[Job], dict[str, Any]]
    sections: tuple[str, ...]
    after: tuple[str, ...]


STAGES: dict[str, Stage] = {
    "simulate": Stage(simulate, ("simulate",), ()),
    "shard": Stage(
        shard,
        (
            "movies",
            "crops",
            "split",
            "seed",
            "pretrain.size",
            "pretrain.include",
            "study.negatives_per_event",
            "study.budgets",
        ),
        ("simulate",),
    ),
    "pretrain": Stage(pretrain, ("pretrain", "seed"), ("shard",)),
    "features": Stage(features, ("study.inits", "study.random_draws"), ("pretrain",)),
    "study": Stage(study, ("study", "seed"), ("features",)),
    "report": Stage(report, ("name",), ("study",)),
}


def stage_key(config: JobConfig, name: str, before: dict[str, str]) -> str:
    """Hash of what a stage depends on."""
    data = config.model_dump(mode="json")
    picked = {}
    for section in STAGES[name].sections:
        head, _, key = section.partition(".")
        picked[section] = data[head][key] if key else data[head]
    return content_hash(
        {"stage": name, "config": picked, "after": [before.get(n) for n in STAGES[name].after]}
    )
