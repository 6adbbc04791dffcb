"""Ray Tune with Optuna: search trials per cell, then the chosen settings on every seed.

What Tune runs is a work: some trials or runs of a cell, trained together. Every finished work leaves one
JSON file, written by its worker; what is there already is not run again, so a study that was interrupted
continues. A work that fails is tried once more, then one trial after the other; of a trial that fails again
the file says so, and the study goes on.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from tapray.atomic import atomic_write
from tapray.config import JobConfig
from tapray.distributed.cluster import for_workers
from tapray.distributed.searcher import CellSearch
from tapray.distributed.signals import interruptible
from tapray.errors import UserError, first_line
from tapray.study.cells import Cell, seeds_together
from tapray.study.choice import check
from tapray.study.results import Kind, kind_of, parted, read_records, work_name
from tapray.study.runner import Places, failure, run_trials

LISTED_S = 90.0  # seconds within which what other machines have written is listed here too
Record = dict[str, Any]
OnResult = Callable[[list[Record]], None]


class Lost(set[str]):
    """Names of trials or runs whose worker died: each of them is run by itself."""

    little_memory = False  # whether Ray ended one because memory was nearly full: from then on one at a time


def search(
    config: JobConfig, store: Path, model: Path, cells: Sequence[Cell], folder: Path, on_result: OnResult
) -> list[dict[str, Any]]:
    """Runs `study.trials` search trials in every cell; returns one record per trial.

    Args:
        store: feature folder; model: pretrained net; folder: where the records are kept.
        on_result: called on the driver with the new records of each work.

    Raises:
        KeyboardInterrupt: the search was interrupted; called again it continues.
        UserError: a disk or file server was away.
    """
    places = Places(store.resolve(), model.resolve(), folder.resolve())
    known, lost = read_records(folder, "trial"), Lost()
    while samples := (searcher := CellSearch(config, cells, known, lost)).missing:
        known += _tune(config, places, {}, searcher, samples, lost, on_result)
    return _complete(folder, "trial", len(cells) * config.study.trials)


def final_runs(
    config: JobConfig,
    store: Path,
    model: Path,
    chosen: dict[Cell, dict[str, float]],
    folder: Path,
    on_result: OnResult,
) -> list[dict[str, Any]]:
    """Runs every chosen setting on every seed, once; returns one record per run.

    Raises:
        KeyboardInterrupt, UserError: as `search`. UserError too: no run is left that can be kept as a model.
    """
    places = Places(store.resolve(), model.resolve(), folder.resolve())
    known, lost = read_records(folder, "run"), Lost()
    works = [
        [
            {"init": cell.init.value, "head": cell.head.value, "budget": cell.budget, "seed": seed, **params}
            for seed in seeds
        ]
        for cell, params in chosen.items()
        for seeds in seeds_together(config, cell)
    ]
    while missing := _missing(works, {work_name("run", record) for record in known}, lost):
        known += _tune(config, places, {"work": tune.grid_search(missing)}, None, 1, lost, on_result)
    records = _complete(folder, "run", sum(map(len, works)))
    check(records)
    return records


def _missing(works: Sequence[list[Record]], done: Set[str], lost: Set[str]) -> list[list[Record]]:
    """What is left of works; those that were lost once, each run by itself."""
    left = [[each for each in work if work_name("run", each) not in done] for work in works]
    return [part for work in left for part in parted("run", work, lost)]


def _complete(folder: Path, kind: Kind, n: int) -> list[Record]:
    """The records of all n runs. Of those that other machines have written, a file server may list the last
    ones late.
    """
    deadline = time.monotonic() + LISTED_S
    while len(records := read_records(folder, kind)) < n:
        if time.monotonic() > deadline:
            raise KeyboardInterrupt
        time.sleep(1)
    return records


def _tune(
    config: JobConfig,
    places: Places,
    param_space: dict[str, Any],
    searcher: Searcher | None,
    samples: int,
    lost: Lost,
    on_result: OnResult,
) -> list[Record]:
    """Runs works; returns their records.

    Args:
        lost: the names of those whose worker died, also before; they have no record the first time.
    """
    trainable = tune.with_parameters(_work, job=for_workers(config), places=places)
    told = _Tell(on_result)
    at_once = 1 if lost.little_memory else config.ray.concurrent_trials
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        param_space=param_space,
        tune_config=_tune_config(searcher, samples, at_once),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((places.records / "ray").resolve()),
            verbose=0,
            callbacks=[told],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )
    try:
        with interruptible(), _little_memory(told, lost):
            tuner.fit()
        failed = [(trial.config["work"], _error(trial)) for trial in told.failed]
        away = [error for work, error in failed if not _settled(places.records, work, error, lost, told)]
    finally:
        shutil.rmtree(places.records / "ray", ignore_errors=True)  # Tune's state: the records say it all
    if away:
        what = f"trials could not read or write their files ({len(away)} works; {first_line(away[0])})"
        raise UserError(what, where="study", todo="run the same command again: they are done then")
    if not (told.heard or told.failed or told.short_of_memory):
        raise KeyboardInterrupt  # Tune was told to stop
    return told.heard


def _tune_config(searcher: Searcher | None, samples: int, at_once: int) -> tune.TuneConfig:
    """What is told to Tune of the search: without a searcher there is nothing to compare."""
    return tune.TuneConfig(
        search_alg=searcher,
        metric="val_ap" if searcher else None,
        mode="max" if searcher else None,
        num_samples=samples,
        max_concurrent_trials=at_once,
        reuse_actors=True,
    )


@contextmanager
def _little_memory(told: _Tell, lost: Lost) -> Iterator[None]:
    """A worker that Ray ends before memory is full takes all of Tune with it: what ran is run one by one.

    Raises:
        UserError: that did not help.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
            raise
        if lost.little_memory:
            what, todo = "trials need more memory than there is", "lower study.batch, or add memory"
            raise UserError(what, where="study", todo=todo) from None
        lost.little_memory = True
        lost |= {work_name(kind_of(work), each) for work in told.running.values() for each in work}
        told.short_of_memory = True


def _settled(folder: Path, work: list[Record], error: BaseException, lost: Lost, told: _Tell) -> bool:
    """Records a work that failed as a whole; False where no trial is at fault: a disk or file was away.

    A worker dies of what a trial does (memory) or of what others do. So its trials are run once more, each by
    itself; only one whose worker dies then too has failed.
    """
    if isinstance(error, OSError):
        return False
    kind = kind_of(work)
    names = {work_name(kind, each) for each in work}
    if isinstance(error, ray.exceptions.RayError) and not names <= lost:
        lost |= names
        return True
    records = [failure(each, error) for each in work]
    atomic_write(folder / f"{work_name(kind, work[0])}.json", json.dumps(records))
    told.say(records)
    return True


class _Tell(tune.Callback):
    """Hands the records of each finished work to the driver, and keeps the works that failed for good."""

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result
        self.failed: list[Any] = []  # as Tune has them: their errors are on disk only after this is told
        self.heard: list[Record] = []
        self.running: dict[str, list[Record]] = {}  # works, by the id that Tune gave them
        self.short_of_memory = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the tuner keeps a copy on disk, which needs no way to talk to this process

    def say(self, records: list[Record]) -> None:
        """New records."""
        self.heard += records
        self._on_result(records)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A work begins, perhaps anew."""
        self.running[trial.trial_id] = trial.config["work"]

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A work is finished."""
        self.running.pop(trial.trial_id, None)
        self.say(json.loads(result["records"]))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A work has failed twice."""
        self.running.pop(trial.trial_id, None)
        self.failed.append(trial)


def _error(trial: Any) -> BaseException:
    """What a worker raised, without Ray's traceback; Tune leaves nothing where its disk is full."""
    error = trial.get_pickled_error() or OSError("Tune could not write the error down")
    cause: BaseException = getattr(error, "cause", error)
    return cause


def _work(config: dict[str, Any], job: str, places: Places) -> None:
    """What Tune runs."""
    work = [{**each, "tune_trial": tune.get_context().get_trial_id()} for each in config["work"]]
    records = run_trials(JobConfig.model_validate_json(job), places, work)
    best = max((record.get("val_ap", 0.0) for record in records), default=0.0)
    tune.report({"val_ap": best, "records": json.dumps(records)})
