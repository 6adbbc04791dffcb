"""What a study's search proposes next: Optuna per cell, behind Ray Tune's interface for searchers."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence, Set
from itertools import islice, product
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from tapray.config import STARTUP, JobConfig
from tapray.study.cells import Cell, together
from tapray.study.results import parted
from tapray.study.space import Axis, Choice, Range, Space, first, space

Record = dict[str, Any]
Directions = dict[str, Literal["maximize", "minimize"]]
OBJECTIVES: dict[str, Directions] = {
    "ap": {"val_ap": "maximize"},
    "ap_and_ece": {"val_ap": "maximize", "val_ece": "minimize"},
}
_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def propose(config: JobConfig, cell: Cell, number: int, history: Sequence[Record]) -> list[dict[str, Any]]:
    """The settings of a cell's trials from `number` on, as many as are proposed together.

    A pure function of its arguments, so that a continued search proposes what an uninterrupted one would
    have. Trial 0 is the sensible setting of `space.first`; TPE draws four at random before it models.

    Args:
        history: the records of the cell's trials before `number`, in their order.
    """
    study = config.study
    own, last = space(cell.init, cell.head, study.search), min(number + study.together, study.trials)
    found: list[dict[str, Any]] = []
    if study.sampler == "grid":
        found += islice(_grid(own, study.trials), number, last)
    elif number == 0:
        found.append(first(cell.init, cell.head, study.search))
    missing = last - number - len(found)
    if missing and own:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = zlib.crc32(f"{config.seed} {cell.name} {number}".encode())
        told = optuna.create_study(
            directions=list(OBJECTIVES[study.objectives].values()), sampler=_sampler(study.sampler, seed)
        )
        axes = {str(name): distribution(axis) for name, axis in own.items()}
        told.add_trials([as_trial(record, axes, study.objectives) for record in history])
        found += [dict(told.ask(axes).params) for _ in range(missing)]
    return found + [{}] * (last - number - len(found))


def _sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
    if kind == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP, deterministic_objective=True)
    return optuna.samplers.RandomSampler(seed=seed)  # of a grid, what is left over


def distribution(axis: Axis) -> BaseDistribution:
    """An axis as Optuna has it."""
    if isinstance(axis, Choice):
        return CategoricalDistribution(axis.values)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def as_trial(record: Record, axes: Mapping[str, BaseDistribution], objectives: str) -> FrozenTrial:
    """A finished trial as Optuna has it; one that failed or was pruned has no value."""
    state = _STATES[record["status"]]
    done = state is TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=state,
        params={name: record[name] for name in axes},
        distributions=dict(axes),
        values=[record[name] for name in OBJECTIVES[objectives]] if done else None,
        intermediate_values={int(step): float(ap) for step, ap in record.get("rungs", {}).items()},
    )


def _grid(own: Space, trials: int) -> list[dict[str, Any]]:
    """Every combination of all choices, with as many values of each range as the trials allow, evenly apart.

    The first ones, where the choices alone are more than the trials.
    """
    if not own:
        return []
    choices = math.prod(len(axis.values) for axis in own.values() if isinstance(axis, Choice))
    ranges = sum(isinstance(axis, Range) for axis in own.values())
    each = max(1, int((trials / choices) ** (1 / ranges) + 1e-9)) if ranges else 1
    values = [axis.values if isinstance(axis, Choice) else _values(axis, each) for axis in own.values()]
    return [dict(zip(map(str, own), combination, strict=True)) for combination in product(*values)]


def _values(axis: Range, n: int) -> Sequence[float]:
    if axis.log:
        return np.geomspace(axis.low, axis.high, n).tolist() if n > 1 else [(axis.low * axis.high) ** 0.5]
    return np.linspace(axis.low, axis.high, n).tolist() if n > 1 else [(axis.low + axis.high) / 2]


class CellSearch(Searcher):
    """One search per cell, in turn: settings are proposed together once all before them are known.

    So what a cell proposes depends on its own results alone, in order, and not on how many trials run at
    the same time.

    Args:
        records: of the trials that are finished; lost: names of trials that are run by themselves.
    """

    def __init__(
        self,
        config: JobConfig,
        cells: Sequence[Cell],
        records: Sequence[Record],
        lost: Set[str] = frozenset(),
    ) -> None:
        super().__init__(metric="val_ap", mode="max")
        self._config, self._lost, self._stopped = config, lost, set[Cell]()
        self._known: dict[Cell, dict[int, Record]] = {cell: {} for cell in cells}
        for record in records:
            self._known[Cell.of(record)][record["trial"]] = record
        self._ready: dict[Cell, list[list[Record]]] = {cell: [] for cell in cells}  # works to be begun
        self._busy: dict[str, Cell] = {}  # by the id of the work

    @property
    def missing(self) -> int:
        """How many works are still to be run, at most."""
        trials = self._config.study.trials
        return sum(trials - len(known) for known in self._known.values())

    def suggest(self, trial_id: str) -> Any:
        """The next work, of the cell that has most to run: {"work": [a record for each trial]}.

        None while it must wait for a result, `Searcher.FINISHED` where there are no more.
        """
        for cell in self._known:
            self._fill(cell)
        cell = max(self._ready, key=lambda cell: (bool(self._ready[cell]), -len(self._known[cell])))
        if not self._ready[cell]:
            return None if self._busy else Searcher.FINISHED
        self._busy[trial_id] = cell
        return {"work": self._ready[cell].pop(0)}

    def _fill(self, cell: Cell) -> None:
        """Proposes the cell's next settings, if all before them are known."""
        known, study = self._known[cell], self._config.study
        if cell in self._stopped or self._ready[cell] or cell in self._busy.values():
            return
        whole = next((n for n in range(study.trials) if n not in known), study.trials)
        begin = whole // study.together * study.together
        history = [known[number] for number in range(begin)]
        proposed = propose(self._config, cell, begin, history) if whole < study.trials else []
        factors = {"init": cell.init.value, "head": cell.head.value, "budget": cell.budget}
        left = [
            {**factors, "trial": begin + n, **params}
            for n, params in enumerate(proposed)
            if begin + n not in known
        ]
        size = together(self._config, cell)
        works = [left[n : n + size] for n in range(0, len(left), size)]
        self._ready[cell] = [part for work in works for part in parted("trial", work, self._lost)]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learns from a finished work; a cell of which one failed as a whole proposes nothing more.

        Whether its trials failed, or were lost and are run again, is not known here: the next search knows.
        """
        cell = self._busy.pop(trial_id)
        if result is None or error:
            self._stopped.add(cell)
            return
        for record in json.loads(result["records"]):
            self._known[cell][record["trial"]] = record
