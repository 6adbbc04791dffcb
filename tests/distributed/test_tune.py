"""The search: what it proposes depends on results alone, and failing trials are recorded, not fatal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from tapray.config import HeadKind, Init, JobConfig
from tapray.distributed.searcher import CellSearch, propose
from tapray.distributed.tune import choose, final_runs, search
from tapray.errors import UserError
from tapray.study.cells import Cell, cells
from tapray.study.results import collect
from tapray.study.space import first, space
from tests.conftest import tiny_config


@pytest.fixture
def config(tmp_path: Path) -> JobConfig:
    return tiny_config(tmp_path, study={"inits": ["tap", "random_default"], "trials": 7})


def score(run: dict[str, Any]) -> float:
    """Stands for a trial: best at a learning rate of 0.001."""
    return -abs(run["learning_rate"] - 1e-3) + (0.1 if run["init"] == "tap" else 0)


def searched(config: JobConfig, at_once: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs a search to its end with up to `at_once` trials under way, the oldest finishing first."""
    searcher, busy, done = CellSearch(config, cells(config), records), [], list(records)
    for number in range(1000):
        suggested = searcher.suggest(str(number)) if len(busy) < at_once else None
        if isinstance(suggested, dict):
            busy.append((str(number), suggested["run"]))
        elif busy:
            trial, run = busy.pop(0)
            searcher.on_trial_complete(trial, {"val_ap": score(run)})
            done.append({**run, "val_ap": score(run), "status": "done"})
        else:
            assert suggested == Searcher.FINISHED
            break
    assert searcher.missing == 0
    return sorted(done, key=lambda record: (record["init"], record["trial"]))


def test_neither_concurrency_nor_interruption_changes_what_is_proposed(config: JobConfig) -> None:
    whole = searched(config, 1, [])
    assert [record["trial"] for record in whole] == [*range(7), *range(7)]
    assert searched(config, 2, []) == whole
    kept = [record for record in whole if record["trial"] < (5 if record["init"] == "tap" else 2)]
    assert searched(config, 2, kept) == whole


def test_proposals_lie_in_the_space_and_differ(config: JobConfig) -> None:
    cell = Cell(Init.TAP, HeadKind.LINEAR, 2)
    assert propose(config, cell, 0, []) == first(Init.TAP, HeadKind.LINEAR)
    drawn = [propose(config, cell, number, []) for number in range(1, 20)]
    for name, (low, high, _) in space(Init.TAP, HeadKind.LINEAR).items():
        values = {params[name] for params in drawn}
        assert len(values) == len(drawn)
        assert low <= min(values) < max(values) <= high
    history = [(params, -abs(params["learning_rate"] - 1e-3)) for params in drawn]
    assert propose(config, cell, 20, history) != propose(config, cell, 20, [])


def test_a_failed_trial_is_not_learned_from_nor_repeated(config: JobConfig) -> None:
    run = {"init": "tap", "head": "linear", "budget": 2, "trial": 0, **first(Init.TAP, HeadKind.LINEAR)}
    searcher = CellSearch(config, cells(config), [{**run, "status": "failed", "error": "x"}])
    assert searcher.missing == 2 * 7 - 1
    given = [searcher.suggest("a")["run"], searcher.suggest("b")["run"]]
    assert [(run["init"], run["trial"]) for run in given] == [("random_default", 0), ("tap", 1)]
    assert searcher.suggest("c") is None  # a cell waits for its result
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d")["run"]["trial"] == 2


@pytest.mark.slow
def test_failing_trials_are_recorded_and_the_study_goes_on(tiny_job: Path, tmp_path: Path) -> None:
    study = {"inits": ["tap", "random_default"], "trials": 1, "random_draws": 2}
    config, folder, store = tiny_config(tmp_path, study=study), tmp_path / "study", tmp_path / "features"
    shutil.copytree(tiny_job / "features", store)
    shutil.copy(store / "tap-0.npy", store / "random_default-0.npy")
    for name in ("tap-0.npy", "random_default-1.npy"):  # damaged: used by all of tap, and by seed 1
        (store / name).write_bytes(b"no features")
    told: list[dict[str, Any]] = []
    every, model = cells(config), tiny_job / "pretrain" / "model"

    trials = search(config, store, model, every, folder, told.append)
    assert {record["init"]: record["status"] for record in trials} == {
        "tap": "failed",
        "random_default": "done",
    }
    assert {record["status"] for record in told} == {"failed", "done"}
    with pytest.raises(UserError, match=r"cell tap-linear-2: every trial failed \(ValueError: ") as raised:
        choose(trials, every)
    assert "\n" not in str(raised.value)

    chosen = choose(trials, every[1:])
    runs = final_runs(config, store, model, chosen, folder, told.append)
    assert [(record["seed"], record["status"]) for record in runs] == [(0, "done"), (1, "failed")]
    assert json.loads((folder / "run-random_default-linear-2-1.json").read_text()) == runs[1]
    assert "ValueError" in runs[1]["error"]
    found = collect(folder, {"arrow_accuracy": 0.5}, leaky=False)
    assert found.results["seed"].tolist() == [0]
    assert list(found.predictions) == [("random_default", "linear", 2, 0)]

    n_told = len(told)
    assert n_told == 4
    assert final_runs(config, store, model, chosen, folder, told.append) == runs
    assert search(config, store, model, every, folder, told.append) == trials
    assert len(told) == n_told  # nothing was run again
