"""Ray Tune with Optuna: search trials per cell, then the chosen settings on every seed.

Every finished run leaves one JSON file, written by its worker; what is there already is
not run again, so a study that was interrupted continues.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tapray.config import HeadKind, Init, JobConfig
from tapray.model.heads import Head
from tapray.runfolder import atomic_folder, atomic_write
from tapray.study.cells import Cell, as_settings, final_record, run_cell, search_score
from tapray.study.space import first, space

OnResult = Callable[[dict[str, Any]], None]


def search(
    config: JobConfig, store: Path, model: Path, cells: Sequence[Cell], folder: Path, on_result: OnResult
) -> list[dict[str, Any]]:
    """Runs `study.trials` search trials in every cell; returns one record per trial.

    Args:
        store: feature folder; model: pretrained net; folder: where the records are kept.
        on_result: called on the driver with each new record.
    """
    searcher = CellSearch(config, cells, folder)
    if missing := len(cells) * config.study.trials - searcher.n_done:
        _tune(config, store, model, folder, _search_trial, {}, searcher, missing, on_result)
    return _records(folder, "trial")


def final_runs(
    config: JobConfig,
    store: Path,
    model: Path,
    chosen: dict[Cell, dict[str, float]],
    folder: Path,
    on_result: OnResult,
) -> list[dict[str, Any]]:
    """Runs every chosen setting on every seed, once; returns one record per run."""
    runs = [
        {"init": cell.init.value, "head": cell.head.value, "budget": cell.budget, "seed": seed, **params}
        for cell, params in chosen.items()
        for seed in range(config.study.seeds)
        if not (folder / f"run-{cell.name}-{seed}.json").exists()
    ]
    if runs:
        param_space = {"run": tune.grid_search(runs)}
        _tune(config, store, model, folder, _final_trial, param_space, None, 1, on_result)
    return _records(folder, "run")


def choose(trials: Sequence[dict[str, Any]], cells: Sequence[Cell]) -> dict[Cell, dict[str, float]]:
    """Each cell's setting of best validation average precision; the lower NLL breaks ties."""
    best = {}
    for cell in cells:
        own = [trial for trial in trials if trial["cell"] == cell.name and trial["status"] == "done"]
        top = max(own, key=lambda trial: (round(trial["val_ap"], 6), -trial["val_nll"], -trial["trial"]))
        best[cell] = {name: top[name] for name in space(cell.init)}
    return best


class CellSearch(Searcher):
    """One Optuna search per cell, in turn, with at most one trial of a cell under way.

    So what a cell proposes depends on its own results alone, in order, and not on how many
    trials run at the same time.
    """

    def __init__(self, config: JobConfig, cells: Sequence[Cell], folder: Path) -> None:
        super().__init__(metric="val_ap", mode="max")
        self._cells, self._allowance = list(cells), config.study.trials
        self._searches = {cell: _optuna(config, cell) for cell in cells}
        self._given = dict.fromkeys(self._cells, 0)
        self._busy: dict[str, Cell] = {}
        self.n_done = 0
        for record in _records(folder, "trial"):
            cell = Cell(Init(record["init"]), HeadKind(record["head"]), record["budget"])
            params = {name: record[name] for name in space(cell.init)}
            self._searches[cell].add_evaluated_point(params, record["val_ap"])
            self._given[cell] += 1
            self.n_done += 1

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        free = [cell for cell in self._cells if cell not in self._busy.values()]
        open_cells = [cell for cell in free if self._given[cell] < self._allowance]
        if not open_cells:
            return None if self._busy else Searcher.FINISHED
        cell = min(open_cells, key=lambda cell: self._given[cell])
        number = self._given[cell]
        params = first(cell.init) if number == 0 else self._searches[cell].suggest(trial_id)
        self._given[cell] += 1
        self._busy[trial_id] = cell
        factors = {"init": cell.init.value, "head": cell.head.value, "budget": cell.budget, "trial": number}
        return {"run": {**factors, **params}}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        cell = self._busy.pop(trial_id)
        search = self._searches[cell]
        if result is not None and result.get("trial") == 0:
            search.add_evaluated_point(first(cell.init), result["val_ap"])
        else:
            search.on_trial_complete(trial_id, result, error)


def _optuna(config: JobConfig, cell: Cell) -> OptunaSearch:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = zlib.crc32(cell.name.encode()) + config.seed
    sampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if config.study.sampler == "random"
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    )
    distributions = {
        name: optuna.distributions.FloatDistribution(low, high, log=log)
        for name, (low, high, log) in space(cell.init).items()
    }
    return OptunaSearch(space=distributions, metric="val_ap", mode="max", sampler=sampler)


def _tune(
    config: JobConfig,
    store: Path,
    model: Path,
    folder: Path,
    trial: Callable[..., None],
    param_space: dict[str, Any],
    searcher: Searcher | None,
    samples: int,
    on_result: OnResult,
) -> None:
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    trainable = tune.with_parameters(
        trial,
        job=config.model_dump_json(),
        store=str(store.resolve()),
        model=str(model.resolve()),
        folder=str(folder.resolve()),
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            metric="val_ap" if searcher else None,
            mode="max" if searcher else None,
            num_samples=samples,
            max_concurrent_trials=config.ray.concurrent_trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((folder / "ray").resolve()),
            verbose=0,
            callbacks=[_Tell(on_result)],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )
    for result in tuner.fit():
        if result.error is not None:
            raise result.error


class _Tell(tune.Callback):
    """Hands each finished run's record to the driver."""

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the tuner keeps a copy on disk, which needs no way to talk to this process

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._on_result(json.loads(result["record"]))


def _search_trial(config: dict[str, Any], job: str, store: str, model: str, folder: str) -> None:
    run, parsed = config["run"], JobConfig.model_validate_json(job)
    cell = Cell(Init(run["init"]), HeadKind(run["head"]), run["budget"])
    scores = search_score(parsed, Path(store), Path(model), cell, as_settings(run))
    record = {"cell": cell.name, **run, **scores, "status": "done"}
    atomic_write(Path(folder) / f"trial-{cell.name}-{run['trial']}.json", json.dumps(record))
    tune.report({**scores, "trial": run["trial"], "record": json.dumps(record)})


def _final_trial(config: dict[str, Any], job: str, store: str, model: str, folder: str) -> None:
    run, parsed = config["run"], JobConfig.model_validate_json(job)
    cell = Cell(Init(run["init"]), HeadKind(run["head"]), run["budget"])
    fitted = run_cell(parsed, Path(store), Path(model), cell, as_settings(run), run["seed"], ("val", "test"))
    record, calibration, threshold = final_record(parsed, cell, run["seed"], fitted)
    name = f"run-{cell.name}-{run['seed']}"
    np.savez(
        Path(folder) / f"{name}.npz",
        labels=fitted.labels["test"],
        logits=fitted.logits["test"],
        val_logits=fitted.logits["val"],
        val_labels=fitted.labels["val"],
        groups=fitted.test["group"].to_numpy(),
    )
    _save_arm(Path(folder) / name, fitted.encoder, fitted.head)
    facts = {"threshold": threshold, "temperature": calibration.temperature, "bias": list(calibration.bias)}
    atomic_write(Path(folder) / f"{name}.json", json.dumps({**run, **record, "calibration": facts}))
    tune.report({"ap": record["ap"], "record": json.dumps(record)})


def _save_arm(folder: Path, encoder: Any, head: Head) -> None:
    from safetensors.torch import save_file

    with atomic_folder(folder) as beside:
        save_file(
            {name: value.contiguous() for name, value in head.state_dict().items()},
            beside / "head.safetensors",
        )
        if encoder is not None:
            tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
            save_file(tensors, beside / "tap.safetensors")


def _records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The kept records, in the order in which a cell's trials or seeds count."""
    records = [json.loads(path.read_text()) for path in folder.glob(f"{kind}-*.json")]
    return sorted(records, key=lambda r: (r["init"], r["head"], r["budget"], r.get("trial", r.get("seed"))))
