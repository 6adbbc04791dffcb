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
from tapray.study.resampling import bands, draws, seed_weights

FloatArray = NDArray[np.float64]
CALIBRATION_COLUMNS = [
    *("init", "head", "budget", "method", "metric", "value", "low", "high"),
    *("change", "change_low", "change_high"),
]
_MAXIMUM = np.array([name == "mce" for name in SCORES])
_HIGHEST = np.array([np.inf if name == "nll" else 1.0 for name in SCORES])  # that a score can be


def calibration_table(predictions: Predictions, rng: np.random.Generator) -> pd.DataFrame:
    """Every calibration score of every way to calibrate, fitted on validation and judged on test, by cell.

    Columns CALIBRATION_COLUMNS: value is the mean over seeds, change that of value minus the value without
    calibration; low and high are 95 % intervals over seeds and blocks of the test set, drawn anew together.
    They are basic bootstrap intervals (Davison and Hinkley 1997, equation 5.6): gaps of a resample are wider
    than those of the crops that it was drawn from, so its ECE is too high, and percentiles would be too. Of
    the MCE, a maximum, they are percentiles. Intervals of a value keep to what it can be.
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
    drawn_blocks = draws(blocks.max() + 1, RESAMPLES, rng)
    weights = seed_weights([run["encoder"] for run in runs], RESAMPLES, rng)
    whole, drawn = dict[str, FloatArray](), dict[str, FloatArray]()
    for name in METHODS:
        sums = np.stack(
            [block_sums(_applied(name, run)(run["logits"]), run["labels"], blocks) for run in runs]
        )
        whole[name] = _stacked(sums.sum(axis=1)).mean(axis=0)
        by_seed = _stacked(np.einsum("rg,sgq->rsq", drawn_blocks, sums))  # (R, S, SCORES)
        drawn[name] = np.einsum("rsm,rs->rm", by_seed, weights)
    rows = []
    for name in METHODS:
        change, moved = whole[name] - whole["none"], drawn[name] - drawn["none"]
        own = (end.clip(0, _HIGHEST) for end in _intervals(whole[name], drawn[name]))
        columns = (SCORES, whole[name], *own, change, *_intervals(change, moved))
        rows += [(name, *row) for row in zip(*columns, strict=True)]
    return rows


def _intervals(value: FloatArray, drawn: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Low and high (SCORES,) of value (SCORES,) and its resamples (R, SCORES).

    They hold the value, also where nearly all resamples lie above it.
    """
    low, high = bands(drawn)
    low, high = np.where(_MAXIMUM, low, 2 * value - high), np.where(_MAXIMUM, high, 2 * value - low)
    return np.fmin(low, value), np.fmax(high, value)


def _applied(name: str, run: Prediction) -> Probabilities:
    """The way of that name, fitted on validation; a model's own as its run has it."""
    if name == "temperature_bias":
        return calibration_of(run).apply
    return METHODS[name](run["val_logits"], run["val_labels"])


def _stacked(sums: FloatArray) -> FloatArray:
    """(..., Q) -> (..., SCORES)."""
    found = reliability_scores(sums)
    return np.stack([found[name] for name in SCORES], axis=-1)
