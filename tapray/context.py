"""What the stages of one job share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tapray.config import JobConfig, MovieEntry
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.runfolder import RunFolder
from tapray.tracking import Tracker

# What tells one trial or run from another: logged as parameters, all other numbers as metrics.
FACTORS = ("init", "head", "budget", "seed", "trial", "learning_rate", "weight_decay", "dropout")


@dataclass
class Job:
    """A job under way: its configuration, run folder and MLflow run.

    keys: of every stage, by name; given: the inputs, where they have been read already.
    """

    config: JobConfig
    folder: RunFolder
    reporter: Reporter
    tracker: Tracker
    run_id: str
    keys: dict[str, str]
    given: Inputs | None = None

    @property
    def shards(self) -> Path:
        """Folder of the labelled crops."""
        return self.folder.stage("shard")

    @property
    def model(self) -> Path:
        """Folder of the pretrained net."""
        return self.folder.stage("pretrain") / "model"

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

    @property
    def history(self) -> list[dict[str, float]]:
        """The learning curve of pretraining, one record every few steps."""
        path = self.folder.stage("pretrain") / "log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def child(self, name: str, tags: dict[str, str]) -> str:
        """The id of this job's own nested MLflow run of that name, opened again if it is there."""
        return self.tracker.run(name, f"{self.run_id}/{name}", self.run_id, tags)

    def teller(
        self, advance: Callable[..., None], kind: str, metric: str
    ) -> Callable[[dict[str, Any]], None]:
        """Logs a finished trial or run (`kind`) to MLflow and moves the progress bar, showing `metric`."""

        def tell(record: dict[str, Any]) -> None:
            number = record["trial" if kind == "trial" else "seed"]
            name = f"{kind} {record['init']} {record['head']} {record['budget']} #{number}"
            run_id = self.child(name, {"stage": "study", "kind": kind})
            self.tracker.params(run_id, {key: record[key] for key in FACTORS if key in record})
            numbers = {key: value for key, value in record.items() if isinstance(value, float)}
            self.tracker.metrics(run_id, {key: value for key, value in numbers.items() if key not in FACTORS})
            self.tracker.finish(run_id, "FINISHED" if record["status"] == "done" else "FAILED")
            advance(1, **({metric: record[metric]} if metric in record else {}))

        return tell
