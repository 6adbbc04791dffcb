"""The search: what it proposes depends on results alone, and failing trials are recorded, not fatal."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.exceptions import OutOfMemoryError
from ray.tune.search import Searcher

from tapray.config import Dimension, HeadKind, Init, JobConfig
from tapray.distributed.journal import journal
from tapray.distributed.searcher import CellSearch, propose
from tapray.distributed.tune import Lost, _little_memory, _Tell, final_runs, search
from tapray.errors import UserError
from tapray.stages import failures
from tapray.study.cells import Cell, cells
from tapray.study.choice import choose
from tapray.study.results import collect
from tapray.study.space import Choice, first, space
from tapray.study.store import FeatureStore
from tests.conftest import tiny_config

TAP = Cell(Init.TAP, HeadKind.LINEAR, 2)
SAMPLERS = ["tpe", "gp", "random", "grid"]


def config_of(tmp_path: Path, **study: Any) -> JobConfig:
    return tiny_config(
        tmp_path, study={"inits": ["tap", "random_default"], "trials": 7, "together": 3, **study}
    )


@pytest.fixture
def config(tmp_path: Path) -> JobConfig:
    return config_of(tmp_path)


def score(run: dict[str, Any]) -> float:
    """Stands for a trial: best at a learning rate of 0.001."""
    return -abs(run["learning_rate"] - 1e-3) + (0.1 if run["init"] == "tap" else 0)


def finished(run: dict[str, Any]) -> dict[str, Any]:
    return {**run, "val_ap": score(run), "val_nll": 0.1, "val_ece": 0.01, "status": "done"}


def searched(config: JobConfig, at_once: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs a search to its end with up to `at_once` works under way, the oldest finishing first."""
    searcher, busy, done = CellSearch(config, cells(config), records), [], list(records)
    for number in range(1000):
        suggested = searcher.suggest(str(number)) if len(busy) < at_once else None
        if isinstance(suggested, dict):
            busy.append((str(number), suggested["work"]))
        elif busy:
            trial, work = busy.pop(0)
            told = [finished(run) for run in work]
            searcher.on_trial_complete(trial, {"val_ap": 0, "records": json.dumps(told)})
            done += told
        else:
            assert suggested == Searcher.FINISHED
            break
    assert searcher.missing == 0
    return sorted(done, key=lambda record: (record["init"], record["trial"]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_neither_concurrency_nor_interruption_changes_what_is_proposed(tmp_path: Path, sampler: str) -> None:
    config = config_of(tmp_path, sampler=sampler)
    whole = searched(config, 1, [])
    assert [record["trial"] for record in whole] == [*range(7), *range(7)]
    assert searched(config, 4, []) == whole
    kept = [record for record in whole if record["trial"] < (5 if record["init"] == "tap" else 2)]
    assert searched(config, 2, kept) == whole


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_lie_in_the_space_and_differ(tmp_path: Path, sampler: str) -> None:
    every = {"sampler": sampler, "search": [*Dimension], "trials": 64, "together": 20}
    every |= {"objectives": "ap_and_ece"}  # of which temperature is a dimension
    config = config_of(tmp_path, **every)
    cell = Cell(Init.TAP, HeadKind.MLP, 2)
    axes = space(cell.init, cell.head, [*Dimension])
    drawn = propose(config, cell, 0, [])
    assert len(drawn) == 20
    drawn += propose(config, cell, 20, [finished({"init": "tap", **params}) for params in drawn])
    assert len({json.dumps(params, sort_keys=True) for params in drawn}) == 40
    for name, axis in axes.items():
        values = {params[name] for params in drawn}
        if isinstance(axis, Choice):
            assert values <= set(axis.values)
        else:
            assert axis.low <= min(values) <= max(values) <= axis.high
    if sampler != "grid":
        assert drawn[0] == first(cell.init, cell.head, [*Dimension])


def test_a_grid_is_every_combination_and_what_is_left_over_is_drawn(tmp_path: Path) -> None:
    config = config_of(tmp_path, sampler="grid", trials=11, together=11)
    drawn = propose(config, TAP, 0, [])
    pairs = [(run["learning_rate"], run["weight_decay"]) for run in drawn]
    wanted = [*product((1e-4, 1e-2, 1.0), (3e-4, 1.732e-3, 1e-2))]
    np.testing.assert_allclose([pair[::-1] for pair in pairs[:9]], wanted, rtol=1e-3)
    assert len(set(pairs)) == 11


def test_a_search_learns_from_what_was_found(tmp_path: Path) -> None:
    config = config_of(tmp_path, sampler="tpe")
    drawn = [finished({"init": "tap", **params}) for n in (0, 3) for params in propose(config, TAP, n, [])]
    assert propose(config, TAP, 6, drawn) != propose(config, TAP, 6, [])
    pruned = {**drawn[0], "status": "pruned", "rungs": {"2": 0.5}}
    propose(config, TAP, 6, [pruned, {**drawn[1], "status": "failed"}, *drawn[2:]])


def test_of_two_goals_both_are_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, objectives="ap_and_ece", trials=8, together=4)
    records = searched(config, 2, [])
    trials = [{**record, "val_ece": 0.2 if record["trial"] == 3 else 0.3} for record in records]
    for record in trials:
        record["val_ap"] = 0.9 - 0.009 * (record["trial"] == 3) - 0.02 * (record["trial"] == 5)
    chosen = choose(config, trials, cells(config))
    wanted = next(record for record in trials if record["init"] == "tap" and record["trial"] == 3)
    assert chosen[TAP]["learning_rate"] == wanted["learning_rate"]  # as good as the best, better calibrated


def test_the_journal_opens_in_optuna(config: JobConfig, tmp_path: Path) -> None:
    records = searched(config, 2, [])
    records[2] |= {"status": "failed"}
    records[3] |= {"status": "pruned", "rungs": {"2": 0.25, "6": 0.5}}
    path = tmp_path / "optuna.log"
    path.write_text(journal(config, cells(config), records))
    storage = JournalStorage(JournalFileBackend(str(path)))
    names = optuna.get_all_study_names(storage)
    assert names == ["tiny tap-linear-2", "tiny random_default-linear-2"]
    study = optuna.load_study(study_name=names[1], storage=storage)
    assert [trial.state.name for trial in study.trials[2:5]] == ["FAIL", "PRUNED", "COMPLETE"]
    assert study.trials[3].intermediate_values == {2: 0.25, 6: 0.5}
    assert study.best_value == max(r["val_ap"] for r in records[:7] if r["status"] == "done")


def test_a_failed_trial_is_not_learned_from_nor_repeated(config: JobConfig) -> None:
    run = {"init": "tap", "head": "linear", "budget": 2, "trial": 0}
    run |= first(Init.TAP, HeadKind.LINEAR, config.study.search)
    searcher = CellSearch(config, cells(config), [{**run, "status": "failed", "error": "x"}])
    assert searcher.missing == 2 * 7 - 1
    given = [searcher.suggest("a")["work"], searcher.suggest("b")["work"]]
    told = [[(run["init"], run["trial"]) for run in work] for work in given]
    assert told == [[("random_default", n) for n in range(3)], [("tap", 1), ("tap", 2)]]
    assert searcher.suggest("c") is None  # a cell waits for its results
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d") is None  # why it failed, the next search knows
    failed = [{**run, "trial": number, "status": "failed", "error": "x"} for number in range(3)]
    following = CellSearch(config, cells(config), failed)
    assert [run["trial"] for run in following.suggest("a")["work"]] == [0, 1, 2]
    assert [run["trial"] for run in following.suggest("b")["work"]] == [3, 4, 5]


def test_what_was_lost_with_its_worker_is_run_by_itself(config: JobConfig) -> None:
    searcher = CellSearch(config, cells(config), [], {"trials-tap-linear-2-1"})
    works = [searcher.suggest(str(number))["work"] for number in range(4)]
    told = sorted([run["init"], *[each["trial"] for each in work]] for work in works for run in work[:1])
    assert told == [["random_default", 0, 1, 2], ["tap", 0], ["tap", 1], ["tap", 2]]
    assert searcher.suggest("z") is None


class Killer:
    """Kills every worker of Tune that maps a file."""

    def __init__(self, name: str) -> None:
        self.killed, self._name, self._ended = 0, name, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            for process in psutil.process_iter(["cmdline"]):
                with contextlib.suppress(psutil.Error):
                    if "ImplicitFunc" in " ".join(process.info["cmdline"] or []) and self._maps(process):
                        process.kill()
                        self.killed += 1

    def _maps(self, process: psutil.Process) -> bool:
        return any(each.path.endswith(self._name) for each in process.memory_maps())


@pytest.mark.slow
def test_a_run_that_always_kills_its_worker_fails_alone(tiny_job: Path, tmp_path: Path) -> None:
    study = {"inits": ["random_default"], "trials": 1, "seeds": 3, "random_draws": 2, "steps": 4000}
    config, folder = tiny_config(tmp_path, study=study), tmp_path / "study"
    store = store_of(tiny_job, tmp_path, ("random_default-0", "random_default-1"))
    (cell,), told = cells(config), list[dict[str, Any]]()
    chosen = {cell: first(cell.init, cell.head, config.study.search)}
    with Killer("random_default-1.arrow") as killer:
        runs = final_runs(config, store, tiny_job / "pretrain" / "model", chosen, folder, told.extend)
    assert [(record["seed"], record["status"]) for record in runs] == [
        (0, "done"),
        (1, "failed"),
        (2, "done"),
    ]
    assert runs[1]["error"].startswith("ActorDiedError: ")
    assert killer.killed == 4  # twice with others, twice alone
    assert sorted(record["seed"] for record in told) == [0, 1, 2]


def test_works_that_ran_when_memory_was_short_run_one_by_one_and_then_end_the_study() -> None:
    told, lost = _Tell(lambda _: None), Lost()
    work = [{"init": "tap", "head": "linear", "budget": 2, "seed": seed} for seed in (0, 1)]

    class Trial:
        trial_id, config = "a", {"work": work}

    def run(error: Exception) -> None:
        told.on_trial_start(0, [], Trial())
        with _little_memory(told, lost):
            raise RuntimeError("Caught unexpected exception") from error

    with pytest.raises(RuntimeError):
        run(ValueError("of another kind"))
    assert not lost
    run(OutOfMemoryError("the node is low on memory"))
    assert lost == {"runs-tap-linear-2-0", "runs-tap-linear-2-1"}
    assert told.short_of_memory
    assert lost.little_memory
    with pytest.raises(UserError, match=r"more memory than there is.*study\.batch"):
        run(OutOfMemoryError("the node is low on memory"))


def store_of(tiny_job: Path, folder: Path, names: Sequence[str]) -> Path:
    """A feature folder whose encoders all have the features of the job's net, each in a file of its own."""
    paths, store = FeatureStore(tiny_job / "features").paths(), folder / "features"
    for name in names:
        shutil.copy(paths["tap-0-projection"], folder / f"{name}.arrow")
    store.mkdir()
    shutil.copy(tiny_job / "features" / "index.parquet", store)
    told = {f"{name}-projection": f"../{name}.arrow" for name in names}
    (store / "arrays.json").write_text(json.dumps({"arrays": told, "cut": {}}))
    return store


@pytest.mark.slow
def test_failing_trials_are_recorded_and_the_study_goes_on(tiny_job: Path, tmp_path: Path) -> None:
    study = {"inits": ["tap", "random_default"], "trials": 1, "random_draws": 2}
    config, folder = tiny_config(tmp_path, study=study), tmp_path / "study"
    store = store_of(tiny_job, tmp_path, ("tap-0", "random_default-0", "random_default-1"))
    for name in ("tap-0", "random_default-1"):  # damaged: used by all of tap, and by seed 1
        (tmp_path / f"{name}.arrow").write_bytes(b"no features")
    told: list[dict[str, Any]] = []
    every, model = cells(config), tiny_job / "pretrain" / "model"

    trials = search(config, store, model, every, folder, told.extend)
    assert {record["init"]: record["status"] for record in trials} == {
        "tap": "failed",
        "random_default": "done",
    }
    assert {record["status"] for record in told} == {"failed", "done"}
    own = [record for record in trials if record["init"] == "tap"]
    with pytest.raises(UserError, match=r"study: every trial failed \(ArrowInvalid: ") as raised:
        choose(config, own, every)
    assert "\n" not in str(raised.value)

    chosen = choose(config, trials, every)
    assert list(chosen) == every[1:]
    runs = final_runs(config, store, model, chosen, folder, told.extend)
    assert [(record["seed"], record["status"]) for record in runs] == [(0, "done"), (1, "failed")]
    (kept,) = json.loads((folder / "runs-random_default-linear-2-1.json").read_text())
    assert {**kept, "work": "runs-random_default-linear-2-1"} == runs[1]
    assert "ArrowInvalid" in runs[1]["error"]
    told_of = list(failures(trials, runs, every))
    assert told_of[0].startswith("1 of 2 search trials failed and do not count (tap-linear-2: ArrowInvalid: ")
    assert told_of[1].startswith("1 of 2 final runs failed and do not count (random_default-linear-2: ")
    assert told_of[2] == "the tables are without tap-linear-2, of which nothing ended well"
    found = collect(folder, [{"arrow_accuracy": 0.5}], leaky=False)
    assert found.results["seed"].tolist() == [0]
    assert list(found.predictions) == [("random_default", "linear", 2, 0)]

    n_told = len(told)
    assert n_told == 4
    assert final_runs(config, store, model, chosen, folder, told.extend) == runs
    assert search(config, store, model, every, folder, told.extend) == trials
    assert len(told) == n_told  # nothing was run again
