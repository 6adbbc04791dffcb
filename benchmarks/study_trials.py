"""What does a study cost beyond its trials' own arithmetic? Many search trials on cached features.

    tapray features studies/hela.yaml --out runs/hela
    python -m benchmarks.study_trials studies/hela.yaml runs/hela --trials 2000

Runs the search of a study of pooled and linear heads from the features of a run folder, with a fresh MLflow
store, and says where the time went: the wall clock once Ray is there, the seconds of a core that the workers
computed, what Optuna needed to propose and MLflow to log, both on the driver. Outside: wall clock minus
computing shared by the workers, by trial. Exits with 1 where that is more than 20 ms in any row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import emit
from tapray.config import HeadKind, Init, JobConfig
from tapray.configfile import load_config
from tapray.console import Reporter
from tapray.context import Job
from tapray.distributed import searcher
from tapray.distributed.cluster import session
from tapray.distributed.tune import search
from tapray.runfolder import RunFolder
from tapray.stores import default_uri
from tapray.study.cells import cells
from tapray.tracking import Tracker


class Clock:
    """Seconds spent within a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Any) -> Any:
        def timed(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def configured(study: Path, run: Path, trials: int, together: int) -> JobConfig:
    config = load_config(study, run)
    wanted = {
        "inits": tuple(init for init in config.study.inits if init in (Init.TAP, Init.RANDOM_DEFAULT)),
        "heads": (HeadKind.POOLED, HeadKind.LINEAR),
        "together": together,
    }
    own = config.study.model_copy(update=wanted)
    config = config.model_copy(update={"study": own})
    each = -(-trials // len(cells(config)))
    return config.model_copy(update={"study": own.model_copy(update={"trials": each})})


def measure(config: JobConfig, run: Path, folder: Path) -> dict[str, Any]:
    tracker = Tracker.open(default_uri(folder), "trials")
    parent = tracker.run("study", "study")
    job = Job(config, RunFolder(run), Reporter("quiet"), tracker, parent, {})
    told, proposed = Clock(), Clock()
    searcher.propose = proposed.around(searcher.propose)
    Tracker.children = told.around(Tracker.children)  # type: ignore[method-assign]
    every, begun = cells(config), time.perf_counter()
    with (
        session(config.ray),
        job.reporter.task("trials", len(every) * config.study.trials, "trial") as progress,
    ):
        start = time.perf_counter()
        started = start - begun
        with job.teller(progress, "trial", "val_ap") as tell:
            records = search(config, job.features, job.model, every, folder / "study", tell)
        wall = time.perf_counter() - start  # until MLflow has all of them
    computed, workers = sum(record["seconds"] for record in records), config.ray.concurrent_trials
    outside = wall - computed / workers
    return {
        "trials": len(records),
        "cells": len(every),
        "together": config.study.together,
        "concurrent": workers,
        "ray_start_s": started,
        "wall_s": wall,
        "trials_per_minute": 60 * len(records) / wall,
        "computed_s": computed,
        "outside_ms_per_trial": 1000 * outside / len(records),
        "mlflow_ms_per_trial": 1000 * told.seconds / len(records),
        "optuna_ms_per_trial": 1000 * proposed.seconds / len(records),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("run", type=Path, help="a run folder whose features stage is done")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--together", type=int, nargs="+", default=[16])
    given = parser.parse_args()
    rows = []
    for together in given.together:
        with tempfile.TemporaryDirectory() as name:
            config = configured(given.study, given.run, given.trials, together)
            rows.append(measure(config, given.run, Path(name)))
    emit("study_trials", {"rows": rows})
    sys.exit(max(row["outside_ms_per_trial"] for row in rows) > 20)


if __name__ == "__main__":
    main()
