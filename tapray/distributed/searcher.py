"""What a study's search proposes next: Optuna per cell, behind Ray Tune's interface for searchers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import optuna
from ray.tune.search import Searcher

from tapray.config import HeadKind, Init, JobConfig
from tapray.study.cells import Cell
from tapray.study.space import first, space

History = list[tuple[dict[str, float], float]]  # settings and validation average precision, in order


def cell_of(run: dict[str, Any]) -> Cell:
    """The cell of a trial's or run's record."""
    return Cell(Init(run["init"]), HeadKind(run["head"]), run["budget"])


def propose(config: JobConfig, cell: Cell, number: int, history: History) -> dict[str, float]:
    """The setting of a cell's trial `number`: a pure function of its arguments.

    So a continued search proposes what an uninterrupted one would have. Trial 0 is the sensible setting
    of `space.first`; TPE draws four at random before it models.
    """
    if number == 0:
        return first(cell.init, cell.head)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = zlib.crc32(f"{config.seed} {cell.name} {number}".encode())
    sampler: optuna.samplers.BaseSampler
    if config.study.sampler == "random":
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(low, high, log=log)
        for name, (low, high, log) in space(cell.init, cell.head).items()
    }
    found = optuna.create_study(direction="maximize", sampler=sampler)
    for params, value in history:
        found.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    return dict(found.ask(distributions).params)


class CellSearch(Searcher):
    """One search per cell, in turn, with at most one trial of a cell under way.

    So what a cell proposes depends on its own results alone, in order, and not on how many
    trials run at the same time.

    Args:
        records: of the trials that an interrupted study has finished.
    """

    def __init__(self, config: JobConfig, cells: Sequence[Cell], records: Sequence[dict[str, Any]]) -> None:
        super().__init__(metric="val_ap", mode="max")
        self._config = config
        self._open = {cell: set(range(config.study.trials)) for cell in cells}  # numbers to be run
        self._history: dict[Cell, History] = {cell: [] for cell in cells}
        self._busy: dict[str, tuple[Cell, dict[str, float]]] = {}
        for record in records:
            cell = cell_of(record)
            self._open[cell].discard(record["trial"])
            if record["status"] == "done":
                params = {name: record[name] for name in space(cell.init, cell.head)}
                self._history[cell].append((params, record["val_ap"]))

    @property
    def missing(self) -> int:
        """How many trials are still to be run."""
        return sum(map(len, self._open.values()))

    def suggest(self, trial_id: str) -> Any:
        """The next trial, of the cell that has most to run.

        None while it must wait for a result, `Searcher.FINISHED` where there are no more.
        """
        busy = {cell for cell, _ in self._busy.values()}
        free = [cell for cell, numbers in self._open.items() if numbers and cell not in busy]
        if not free:
            return None if self._busy else Searcher.FINISHED
        cell = max(free, key=lambda cell: len(self._open[cell]))
        number = min(self._open[cell])
        self._open[cell].discard(number)
        params = propose(self._config, cell, number, self._history[cell])
        self._busy[trial_id] = cell, params
        factors = {"init": cell.init.value, "head": cell.head.value, "budget": cell.budget, "trial": number}
        return {"run": {**factors, **params}}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learns from a finished trial; a failed one teaches nothing."""
        cell, params = self._busy.pop(trial_id)
        if result is not None and not error:
            self._history[cell].append((params, result["val_ap"]))
