"""Which setting of a cell is run on every seed: the one that is best on validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tapray.config import JobConfig
from tapray.errors import UserError
from tapray.study.cells import Cell
from tapray.study.space import space

EQUAL_AP = 0.01  # a difference of average precision that does not count beside one of calibration


def choose(
    config: JobConfig, trials: Sequence[dict[str, Any]], cells: Sequence[Cell]
) -> dict[Cell, dict[str, Any]]:
    """Each cell's setting of best validation average precision; the lower NLL breaks ties.

    Of two objectives the setting of lowest ECE among those within `EQUAL_AP` of the best. A cell of which no
    trial ended well has none.

    Raises:
        UserError: no cell is left that can be kept as a model.
    """
    check(trials)
    best = {}
    for cell in cells:
        own = [trial for trial in trials if trial["status"] == "done" and Cell.of(trial) == cell]
        if not own:
            continue
        if config.study.objectives == "ap_and_ece":
            floor = max(trial["val_ap"] for trial in own) - EQUAL_AP
            good = [trial for trial in own if trial["val_ap"] >= floor]
            top = min(good, key=lambda trial: (trial["val_ece"], trial["trial"]))
        else:
            top = max(own, key=lambda trial: (round(trial["val_ap"], 6), -trial["val_nll"], -trial["trial"]))
        best[cell] = {str(name): top[name] for name in space(cell.init, cell.head, config.study.search)}
    return best


def check(records: Sequence[dict[str, Any]]) -> None:
    """Raises UserError where nothing is left that can be kept as a model."""
    able = [record for record in records if Cell.of(record).init.is_tap]
    if not any(record["status"] == "done" for record in able):
        error = next((record["error"] for record in able if "error" in record), "all were pruned")
        todo = "mend the cause and run again with --force study"
        raise UserError(f"every trial failed ({error})", where="study", todo=todo)
