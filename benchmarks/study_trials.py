"""What does a study cost beyond its trials' own arithmetic? Many search trials on cached features.

    tapray features studies/hela.yaml --out runs/hela
    python -m benchmarks.study_trials studies/hela.yaml runs/hela --trials 2000

Runs a whole study of pooled and linear heads from the features of a run folder, with a fresh MLflow store:
the search, the final runs of what it chose, and Optuna's own study of all trials. Says where the time went:
the wall clock once Ray is there, the seconds of a core that the workers computed, what Optuna needed to
propose and MLflow to log, both on the driver. Outside: wall clock minus computing shared by the workers, by
trial and run. Exits with 1 where that is more than 20 ms in any row. A row for each sampler and number of
trials that are proposed together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import emit
from tapray.config import HeadKind, Init, JobConfig, StudyConfig
from tapray.configfile import load_config
from tapray.console import Reporter
from tapray.context import Job
from tapray.distributed import searcher
from tapray.distributed.cluster import session
from tapray.distributed.journal import journal
from tapray.distributed.tune import final_runs, search
from tapray.runfolder import RunFolder
from tapray.stores import default_uri
from tapray.study.cells import cells
from tapray.study.choice import choose
from tapray.tracking import Tracker

PARTS = ("search", "journal", "final_runs")


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


def configured(study: Path, run: Path, trials: int, together: int, sampler: str) -> JobConfig:
    config = load_config(study, run)
    wanted = {
        "inits": tuple(init for init in config.study.inits if init in (Init.TAP, Init.RANDOM_DEFAULT)),
        "heads": (HeadKind.POOLED, HeadKind.LINEAR),
        "together": together,
        "sampler": sampler,
    }
    own = config.study.model_copy(update=wanted)
    config = config.model_copy(update={"study": own})
    each = -(-trials // len(cells(config)))
    # validated anew: a sampler refuses what leaves it nothing to learn from
    given = {**own.model_dump(), "trials": each}
    return config.model_copy(update={"study": StudyConfig.model_validate(given)})


def measure(config: JobConfig, run: Path, folder: Path) -> dict[str, Any]:
    tracker = Tracker.open(default_uri(folder), "trials")
    parent = tracker.run("study", "study")
    job = Job(config, RunFolder(run), Reporter("quiet"), tracker, parent, {})
    told, proposed = Clock(), Clock()
    searcher.propose = proposed.around(searcher.propose)
    Tracker.children = told.around(Tracker.children)  # type: ignore[method-assign]
    every, begun = cells(config), time.perf_counter()
    with session(config.ray):
        marks = [time.perf_counter()]
        with job.reporter.task("", 1, "") as shown, job.teller(shown, "trial", "val_ap") as tell:
            trials = search(config, job.features, job.model, every, folder / "study", tell)
        marks.append(time.perf_counter())  # MLflow has all of them
        written = len(journal(config, every, trials))
        marks.append(time.perf_counter())
        chosen = choose(config, trials, every)
        with job.reporter.task("", 1, "") as shown, job.teller(shown, "run", "ap") as tell:
            runs = final_runs(config, job.features, job.model, chosen, folder / "study", tell)
        marks.append(time.perf_counter())
    records, started, wall = trials + runs, marks[0] - begun, marks[-1] - marks[0]
    computed, workers = sum(record["seconds"] for record in records), config.ray.concurrent_trials
    outside = wall - computed / workers
    return {
        "trials": len(trials),
        "final_runs": len(runs),
        "cells": len(every),
        "sampler": config.study.sampler,
        "together": config.study.together,
        **{f"{part}_s": b - a for part, a, b in zip(PARTS, marks, marks[1:], strict=False)},
        "journal_bytes": written,
        "concurrent": workers,
        "ray_start_s": started,
        "wall_s": wall,
        "trials_per_minute": 60 * len(trials) / (marks[1] - marks[0]),
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
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    given = parser.parse_args()
    rows = []
    for together, sampler in product(given.together, given.samplers):
        with tempfile.TemporaryDirectory() as name:
            config = configured(given.study, given.run, given.trials, together, sampler)
            rows.append(measure(config, given.run, Path(name)))
            print(rows[-1], file=sys.stderr, flush=True)
    emit("study_trials", {"rows": rows})
    sys.exit(max(row["outside_ms_per_trial"] for row in rows) > 20)


if __name__ == "__main__":
    main()
