"""Ray Tune with Optuna: search trials per cell, then the chosen settings on every seed.

Every finished run leaves one JSON file, written by its worker; what is there already is
not run again, so a study that was interrupted continues. A run that fails is tried once more,
then its file says so and the study goes on.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ray import tune
from ray.tune.search import Searcher
from safetensors.torch import save_file

from tapray.atomic import atomic_folder, atomic_write
from tapray.config import JobConfig
from tapray.distributed.cluster import interruptible
from tapray.distributed.searcher import CellSearch, cell_of
from tapray.errors import UserError
from tapray.model.heads import Head
from tapray.model.tap import TapNet
from tapray.study.cells import SEARCH_SEED, Cell, Run, as_settings, final_record, run_cell, search_score
from tapray.study.results import read_records, run_name, trial_name
from tapray.study.space import space

OnResult = Callable[[dict[str, Any]], None]


def search(
    config: JobConfig, store: Path, model: Path, cells: Sequence[Cell], folder: Path, on_result: OnResult
) -> list[dict[str, Any]]:
    """Runs `study.trials` search trials in every cell; returns one record per trial.

    Args:
        store: feature folder; model: pretrained net; folder: where the records are kept.
        on_result: called on the driver with each new record.

    Raises:
        KeyboardInterrupt: the search was interrupted; called again it continues.
    """
    searcher = CellSearch(config, cells, read_records(folder, "trial"))
    if samples := searcher.missing:
        _tune(config, store, model, folder, _search_trial, {}, searcher, samples, on_result)
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
        KeyboardInterrupt: as `search`. UserError: every run of a cell failed.
    """
    runs = [
        {"init": cell.init.value, "head": cell.head.value, "budget": cell.budget, "seed": seed, **params}
        for cell, params in chosen.items()
        for seed in range(config.study.seeds)
    ]
    if missing := [run for run in runs if not (folder / f"{run_name(run)}.json").exists()]:
        param_space = {"run": tune.grid_search(missing)}
        _tune(config, store, model, folder, _final_trial, param_space, None, 1, on_result)
    records = _complete(folder, "run", len(runs))
    for cell in chosen:
        _done(records, cell)
    return records


def choose(trials: Sequence[dict[str, Any]], cells: Sequence[Cell]) -> dict[Cell, dict[str, float]]:
    """Each cell's setting of best validation average precision; the lower NLL breaks ties.

    Raises:
        UserError: every trial of a cell failed.
    """
    best = {}
    for cell in cells:
        own = _done(trials, cell)
        top = max(own, key=lambda trial: (round(trial["val_ap"], 6), -trial["val_nll"], -trial["trial"]))
        best[cell] = {name: top[name] for name in space(cell.init, cell.head)}
    return best


def _done(records: Sequence[dict[str, Any]], cell: Cell) -> list[dict[str, Any]]:
    """The cell's records that count."""
    own = [record for record in records if record["cell"] == cell.name]
    done = [record for record in own if record["status"] == "done"]
    if not done:
        error = own[0]["error"] if own else "there is none"
        raise UserError(
            f"every trial failed ({error})",
            where=f"study cell {cell.name}",
            todo="mend the cause and run again with --force study",
        )
    return done


def _complete(folder: Path, kind: Literal["trial", "run"], n: int) -> list[dict[str, Any]]:
    """The records of all n runs. Tune returns without some where Ctrl-C has stopped it."""
    records = read_records(folder, kind)
    if len(records) < n:
        raise KeyboardInterrupt
    return records


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
    places = {"store": store, "model": model, "folder": folder}
    trainable = tune.with_parameters(
        trial, job=config.model_dump_json(), **{name: str(path.resolve()) for name, path in places.items()}
    )
    told = _Tell(on_result)
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
            callbacks=[told],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )
    with interruptible():
        tuner.fit()
    for failed in told.failed:
        _record_failure(folder, failed, on_result)
    shutil.rmtree(folder / "ray", ignore_errors=True)  # Tune's own state: the records say it all


class _Tell(tune.Callback):
    """Hands each finished run's record to the driver, and keeps the trials that failed for good."""

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result
        self.failed: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the tuner keeps a copy on disk, which needs no way to talk to this process

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A run is finished."""
        self._on_result(json.loads(result["record"]))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A run has failed twice."""
        self.failed.append(trial)


def _record_failure(folder: Path, trial: Any, on_result: OnResult) -> None:
    """The record of a trial that failed, with its error as one line."""
    run = trial.config["run"]
    error = trial.get_pickled_error() or trial.get_error()
    error = getattr(error, "cause", error)  # what the worker raised, without Ray's traceback
    text = " ".join(f"{type(error).__name__}: {error}".split())
    record = {"cell": cell_of(run).name, **run, "status": "failed", "error": text[:500]}
    name = trial_name(run) if "trial" in run else run_name(run)
    atomic_write(folder / f"{name}.json", json.dumps(record))
    on_result(record)


def _search_trial(config: dict[str, Any], job: str, store: str, model: str, folder: str) -> None:
    run, parsed = config["run"], JobConfig.model_validate_json(job)
    cell = cell_of(run)
    scores = search_score(Run(parsed, Path(store), Path(model), cell, as_settings(run), SEARCH_SEED))
    record = json.dumps({"cell": cell.name, **run, **scores, "status": "done"})
    atomic_write(Path(folder) / f"{trial_name(run)}.json", record)
    tune.report({**scores, "record": record})


def _final_trial(config: dict[str, Any], job: str, store: str, model: str, folder: str) -> None:
    run, parsed = config["run"], JobConfig.model_validate_json(job)
    cell, target = cell_of(run), Path(folder) / run_name(run)
    work = Run(parsed, Path(store), Path(model), cell, as_settings(run), run["seed"])
    fitted = run_cell(work, ("val", "test"))
    scores, calibration, threshold = final_record(work, fitted)
    arrays = io.BytesIO()
    np.savez(
        arrays,
        labels=fitted.labels["test"],
        logits=fitted.logits["test"],
        val_logits=fitted.logits["val"],
        val_labels=fitted.labels["val"],
        groups=fitted.test["group"].to_numpy(),
    )
    atomic_write(target.with_name(f"{target.name}.npz"), arrays.getvalue())
    _save_arm(target, fitted.encoder, fitted.head)
    facts = {"threshold": threshold, "temperature": calibration.temperature, "bias": list(calibration.bias)}
    body = {"cell": cell.name, **run, **scores, "calibration": facts, "status": "done"}
    record = json.dumps(body)
    atomic_write(target.with_name(f"{target.name}.json"), record)  # last: it says that all is there
    tune.report({"ap": scores["ap"], "record": record})


def _save_arm(folder: Path, encoder: TapNet | None, head: Head) -> None:
    """The trained weights: head.safetensors and, where the encoder was trained too, tap.safetensors."""
    with atomic_folder(folder) as beside:
        for module, name in ((head, "head"), (encoder, "tap")):
            if module is not None:
                tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
                save_file(tensors, beside / f"{name}.safetensors")
