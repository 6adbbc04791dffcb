"""The search as Optuna keeps it, for optuna-dashboard and Optuna's own analyses."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from tapray.config import JobConfig
from tapray.distributed.searcher import OBJECTIVES, as_trial, distribution
from tapray.study.cells import Cell
from tapray.study.space import space


class _Lines(BaseJournalBackend):
    """A journal in memory: Optuna's own file backend locks and syncs its file for every entry."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Entries from that number on."""
        yield from self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Keeps more entries."""
        self.logs.extend(logs)


def journal(config: JobConfig, cells: Sequence[Cell], trials: Sequence[dict[str, Any]]) -> str:
    """The text of a journal file with one study for each cell (`optuna-dashboard FILE` opens it)."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines = _Lines()
    storage, objectives = JournalStorage(lines), config.study.objectives
    for cell in cells:
        axes = {
            str(name): distribution(axis)
            for name, axis in space(cell.init, cell.head, config.study.search).items()
        }
        study = optuna.create_study(
            study_name=f"{config.name} {cell.name}",
            directions=list(OBJECTIVES[objectives].values()),
            storage=storage,
        )
        own = [record for record in trials if Cell.of(record) == cell]
        study.add_trials([as_trial(record, axes, objectives) for record in own])
    return "".join(json.dumps(entry) + "\n" for entry in lines.logs)
