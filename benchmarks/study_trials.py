"""What does a study cost beyond its trials' own arithmetic? Many search trials on cached features.

    tapray features studies/hela.yaml --out runs/hela
    python -m benchmarks.study_trials studies/hela.yaml runs/hela --trials 2000

Runs a whole study of pooled and linear heads from the features of a run folder, with a fresh MLflow store:
the search, Optuna's own study of all trials, and the final runs of what it chose. A row for each sampler and
number of trials that are proposed together, with everything logged and with nothing, in turn; each row says
where the wall clock went once Ray was there:

- `computed_s`: seconds of a core that the workers computed, once they had what follows;
- `reading_s`: seconds of a core in which workers read and pooled the features of all crops, as each does for
  every encoder and head that it meets first;
- `outside_ms_per_trial`: wall clock minus both shared by the workers, by trial and run; beside it the same
  with reading counted as outside;
- `share_of_wall`: MLflow's logging, in a thread beside, and Optuna's proposals and its own study, both on the
  driver.

`logging` compares the rows' wall clocks: what it adds to a trial that everything is logged, and to all of it.
Exits with 1 where more than 20 ms a trial are outside in any row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.common import emit
from tapray.config import HeadKind, Init, JobConfig, StudyConfig
from tapray.configfile import load_config
from tapray.console import Reporter
from tapray.context import Job, Tell
from tapray.distributed import searcher, tune
from tapray.distributed.cluster import session
from tapray.distributed.journal import journal
from tapray.model.encoders import draw_of
from tapray.runfolder import RunFolder
from tapray.stores import default_uri
from tapray.study import store
from tapray.study.cells import Cell, cells
from tapray.study.choice import choose
from tapray.study.runner import Places
from tapray.study.space import settings_of
from tapray.study.works import SEARCH_SEED
from tapray.tracking import Tracker

PARTS = ("search_s", "journal_s", "final_runs_s")
READING = "reading_us"  # in records: a whole number, which MLflow is not given


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


def reading_first(config: dict[str, Any], job: str, places: Places) -> None:
    """A worker's work, but what it keeps of the features of all crops is there before its clock begins."""
    told, start = JobConfig.model_validate_json(job), time.process_time()
    for each in config["work"]:
        cell = Cell.of(each)
        own = settings_of(cell.init, cell.head, each, told.study.fixed)
        draw = draw_of(cell.init, told, each.get("seed", SEARCH_SEED))
        store.settled_head(places.store, cell.init, draw, cell.head, own.layer, own.pooling)
    first, *others = config["work"]
    taken = round(1e6 * (time.process_time() - start))
    tune._work({"work": [{**first, READING: taken}, *others]}, job, places)


@contextmanager
def telling(job: Job, kind: str, metric: str, *, logged: bool) -> Iterator[Tell]:
    """As a job tells of its trials or runs, or not at all."""
    if not logged:
        yield lambda _: None
        return
    with job.reporter.task("", 1, "") as shown, job.teller(shown, kind, metric) as tell:
        yield tell


@dataclass(frozen=True)
class Done:
    """What a study has left, and the seconds of its parts."""

    trials: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    journal_bytes: int
    seconds: dict[str, float]

    def total(self, name: str) -> float:
        """Of all records."""
        return float(sum(record.get(name, 0) for record in self.trials + self.runs))


def study(job: Job, folder: Path, *, logged: bool) -> Done:
    """As the stage of that name."""
    config, every = job.config, cells(job.config)
    marks = [time.perf_counter()]
    with telling(job, "trial", "val_ap", logged=logged) as tell:
        trials = tune.search(config, job.features, job.model, every, folder, tell)
    marks.append(time.perf_counter())  # MLflow has all of them
    written = len(journal(config, every, trials))
    marks.append(time.perf_counter())
    chosen = choose(config, trials, every)
    with telling(job, "run", "ap", logged=logged) as tell:
        runs = tune.final_runs(config, job.features, job.model, chosen, folder, tell)
    marks.append(time.perf_counter())
    seconds = dict(zip(PARTS, (end - begin for begin, end in pairwise(marks)), strict=True))
    return Done(trials, runs, written, seconds)


def measure(config: JobConfig, run: Path, folder: Path, *, logged: bool) -> dict[str, Any]:
    """A row."""
    tracker = Tracker.open(default_uri(folder / "run"), "trials")
    parent = tracker.run("study", "study")
    job = Job(config, RunFolder(run), Reporter("quiet"), tracker, parent, {})
    told, proposed, begun = Clock(), Clock(), time.perf_counter()
    with (
        patch.object(Tracker, "children", told.around(Tracker.children)),
        patch.object(searcher, "propose", proposed.around(searcher.propose)),
        patch.object(tune, "_work", reading_first),
        session(config.ray),
    ):
        started = time.perf_counter() - begun
        done = study(job, folder / "study", logged=logged)
    return {
        "sampler": config.study.sampler,
        "together": config.study.together,
        "logged": logged,
        "trials": len(done.trials),
        "final_runs": len(done.runs),
        "cells": len(cells(config)),
        "concurrent": config.ray.concurrent_trials,
        "journal_bytes": done.journal_bytes,
        "ray_start_s": started,
        **done.seconds,
        **spent(done, config.ray.concurrent_trials, told.seconds, proposed.seconds),
    }


def spent(done: Done, workers: int, told: float, proposed: float) -> dict[str, Any]:
    """Where the time went; told, proposed: seconds of MLflow's and Optuna's."""
    wall, works = sum(done.seconds.values()), len(done.trials) + len(done.runs)
    computed, reading = done.total("seconds"), done.total(READING) / 1e6
    optuna = proposed + done.seconds["journal_s"]
    return {
        "wall_s": wall,
        "trials_per_minute": 60 * len(done.trials) / done.seconds["search_s"],
        "computed_s": computed,
        "reading_s": reading,
        "share_of_wall": {"mlflow": told / wall, "optuna": optuna / wall},
        "outside_ms_per_trial": 1000 * (wall - (computed + reading) / workers) / works,
        "outside_and_reading_ms_per_trial": 1000 * (wall - computed / workers) / works,
        "mlflow_ms_per_trial": 1000 * told / works,
        "optuna_ms_per_trial": 1000 * proposed / works,
    }


def logging(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What it adds, by sampler and number proposed together: of medians over the repeats."""
    found = []
    for key in dict.fromkeys((row["sampler"], row["together"]) for row in rows):
        own = [row for row in rows if (row["sampler"], row["together"]) == key]
        walls = {which: [row["wall_s"] for row in own if row["logged"] == which] for which in (True, False)}
        without = statistics.median(walls[False])
        more = statistics.median(walls[True]) - without
        works = own[0]["trials"] + own[0]["final_runs"]
        told = {"wall_s_logged": walls[True], "wall_s_not_logged": walls[False]}
        adds = {"adds_ms_per_trial": 1000 * more / works, "adds_share": more / without}
        found.append({"sampler": key[0], "together": key[1], **told, **adds})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("run", type=Path, help="a run folder whose features stage is done")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--together", type=int, nargs="+", default=[16])
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--repeats", type=int, default=3, help="of each row")
    given = parser.parse_args()
    rows = []
    for together, sampler, number in product(given.together, given.samplers, range(given.repeats)):
        config = configured(given.study, given.run, given.trials, together, sampler)
        for logged in (True, False) if number % 2 == 0 else (False, True):  # neither always comes first
            with tempfile.TemporaryDirectory() as name:
                rows.append(measure(config, given.run, Path(name), logged=logged))
            print(rows[-1], file=sys.stderr, flush=True)
    compared = logging(rows)
    print(compared, file=sys.stderr, flush=True)
    emit("study_trials", {"rows": rows, "logging": compared})
    sys.exit(max(row["outside_ms_per_trial"] for row in rows) > 20)


if __name__ == "__main__":
    main()
