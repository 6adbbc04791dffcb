"""How far every way of calibration can be relied on: tables of a study's final runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.report.reliability import RESAMPLES, Prediction, Predictions, calibration_of
from tapray.report.tables import ordered
from tapray.study.recalibration import METHODS, Probabilities
from tapray.study.reliability import SCORES, block_sums, reliability_scores
from tapray.study.resampling import bands, draws

CALIBRATION_COLUMNS = [
    *("init", "head", "budget", "method", "metric", "value", "low", "high"),
    *("change", "change_low", "change_high"),
]


def calibration_table(predictions: Predictions, rng: np.random.Generator) -> pd.DataFrame:
    """Every calibration score of every way to calibrate, fitted on validation and judged on test, by cell.

    Columns CALIBRATION_COLUMNS: value is the mean over seeds, change that of value minus the value without
    calibration; low and high are 95 % intervals over seeds and blocks of the test set, drawn anew together.
    """
    cells: dict[tuple[str, str, int], list[Prediction]] = {}
    for (init, head, budget, _), run in predictions.items():
        cells.setdefault((str(init), str(head), int(budget)), []).append(run)
    rows = [(*cell, *row) for cell, runs in cells.items() for row in _of_cell(runs, rng)]
    return ordered(pd.DataFrame(rows, columns=CALIBRATION_COLUMNS))


def _of_cell(
    runs: Sequence[Prediction], rng: np.random.Generator
) -> list[tuple[str, str, *tuple[float, ...]]]:
    _, blocks = np.unique(runs[0]["blocks"], return_inverse=True)
    weights = draws(blocks.max() + 1, RESAMPLES, rng), draws(len(runs), RESAMPLES, rng) / len(runs)
    whole, drawn = dict[str, NDArray[np.float64]](), dict[str, NDArray[np.float64]]()
    for name in METHODS:
        sums = np.stack(
            [block_sums(_applied(name, run)(run["logits"]), run["labels"], blocks) for run in runs]
        )
        whole[name] = _stacked(sums.sum(axis=1)).mean(axis=0)
        by_seed = _stacked(np.einsum("rg,sgq->rsq", weights[0], sums))  # (R, S, SCORES)
        drawn[name] = np.einsum("rsm,rs->rm", by_seed, weights[1])
    rows = []
    for name in METHODS:
        change, moved = whole[name] - whole["none"], drawn[name] - drawn["none"]
        columns = (SCORES, whole[name], *bands(drawn[name]), change, *bands(moved))
        rows += [(name, *row) for row in zip(*columns, strict=True)]
    return rows


def _applied(name: str, run: Prediction) -> Probabilities:
    """The way of that name, fitted on validation; a model's own as its run has it."""
    if name == "temperature_bias":
        return calibration_of(run).apply
    return METHODS[name](run["val_logits"], run["val_labels"])


def _stacked(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., Q) -> (..., SCORES)."""
    found = reliability_scores(sums)
    return np.stack([found[name] for name in SCORES], axis=-1)
