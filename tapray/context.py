"""What the stages of one job share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tapray.background import in_background
from tapray.config import Dimension, JobConfig, MovieEntry
from tapray.console import Reporter, Task
from tapray.crops.collect import Inputs
from tapray.finished import Finished
from tapray.provenance import git_commit
from tapray.runfolder import RunFolder
from tapray.study.cache import FeatureCache
from tapray.study.results import Results, collect
from tapray.tracking import Tracker

# What tells one trial or run from another: logged as parameters, all other numbers as metrics.
FACTORS = ("init", "head", "budget", "seed", "trial", *(name for name in Dimension if name != "temperature"))
# What MLflow's comparison page groups and filters by.
TAGS = ("init", "head", "budget", "seed", "trial", "tune_trial", "status", "error")
Tell = Callable[[list[dict[str, Any]]], None]


@dataclass
class Job:
    """A job under way: its configuration, run folder and MLflow run.

    keys: of every stage, by name; given: the inputs, where they have been read already; forced: the stages
    whose work is to be done again even where the cache has it.
    """

    config: JobConfig
    folder: RunFolder
    reporter: Reporter
    tracker: Tracker
    run_id: str
    keys: dict[str, str]
    given: Inputs | None = None
    forced: Sequence[str] = ()

    @property
    def name(self) -> str:
        """That of the run folder: a study may be run in several."""
        return self.folder.out.name

    @property
    def shards(self) -> Path:
        """Folder of the labelled crops."""
        return self.folder.stage("shard")

    @property
    def model(self) -> Path:
        """Folder of the pretrained net, of the first where there are several."""
        return self.folder.stage("pretrain") / "model"

    @property
    def cache(self) -> Path:
        """Folder that studies share, of features and pretrained nets."""
        return self.config.cache.folder or self.folder.out.parent / "cache"

    @property
    def feature_cache(self) -> FeatureCache:
        """Of all studies that share the cache."""
        return FeatureCache(self.cache / "features", self.config.cache.max_gb * 1e9)

    @property
    def features(self) -> Path:
        """Folder of the dense features."""
        return self.folder.stage("features")

    @property
    def study(self) -> Path:
        """Folder of the records of trials and runs."""
        return self.folder.stage("study")

    @cached_property
    def inputs(self) -> Inputs:
        """The movies of the configuration, or those the simulator wrote."""
        if self.given is not None:
            return self.given
        if self.config.simulate is None:
            return Inputs(self.config, self.config.movies)
        listed = json.loads((self.folder.stage("simulate") / "movies.json").read_text())
        return Inputs(self.config, [MovieEntry.model_validate(item) for item in listed])

    @cached_property
    def results(self) -> Results:
        """The study's final runs and search trials."""
        return results_of(self.folder)

    @property
    def history(self) -> list[dict[str, float]]:
        """The learning curve of pretraining, one record every few steps."""
        path = self.folder.stage("pretrain") / "log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def note_data(self) -> None:
        """Notes in MLflow which labelled crops this job's run is about, made by it or found."""
        manifest = self.shards / "manifest.json"
        digest = json.loads(manifest.read_text())["digest"][:32]
        self.tracker.dataset(self.run_id, self.config.name, digest, str(self.shards), "labelled crops")
        self.tracker.artifact(self.run_id, manifest, "dataset")

    def child(self, name: str, tags: dict[str, str]) -> str:
        """The id of this job's own nested MLflow run of that name, opened again if it is there."""
        return self.tracker.run(name, f"{self.run_id}/{name}", self.run_id, tags)

    @contextmanager
    def teller(self, progress: Task, kind: str, metric: str) -> Iterator[Tell]:
        """Logs finished trials or runs (`kind`) to MLflow and moves the progress bar, showing `metric`."""

        def log(records: list[dict[str, Any]]) -> None:
            self.tracker.children(self.run_id, [self._told(record, kind) for record in records])

        def tell(records: list[dict[str, Any]]) -> None:
            later(records)
            shown = [record[metric] for record in records if metric in record]
            progress.update(progress.done + len(records), **({metric: shown[-1]} if shown else {}))

        with in_background(log) as later:
            yield tell

    def _told(self, record: dict[str, Any], kind: str) -> Finished:
        number = record["trial" if kind == "trial" else "seed"]
        name = f"{kind} {record['init']} {record['head']} {record['budget']} #{number}"
        numbers = {key: float(value) for key, value in record.items() if isinstance(value, float)}
        return Finished(
            name=name,
            identity=f"{self.run_id}/{name}",
            status="FAILED" if record["status"] == "failed" else "FINISHED",
            tags={
                **{"stage": "study", "kind": kind, "split": self.config.split.kind.value},
                **{name: str(record[name]) for name in TAGS if name in record},
                **({"mlflow.source.git.commit": commit} if (commit := git_commit()) else {}),
            },
            params={
                **{"study": self.name, "split": self.config.split.kind.value},
                **{key: record[key] for key in FACTORS if key in record},
            },
            metrics={key: value for key, value in numbers.items() if key not in FACTORS},
        )


def results_of(folder: RunFolder) -> Results:
    """What the study in a run folder has found."""
    audit = folder.facts("shard")["audit"]
    leaky = max(audit["train"], audit["val"], audit["pretrain"]) > 0
    return collect(folder.stage("study"), folder.facts("pretrain")["nets"], leaky=leaky)
