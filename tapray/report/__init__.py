"""The report of a study: tables, figures and one Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import Init
from tapray.report.figures import arrow_curve, label_budget_curve, reliability_diagrams
from tapray.report.page import page
from tapray.report.reliability import RESAMPLES, Prediction, Predictions
from tapray.report.tables import beside, compare, result_table, summarise, write_csv, write_tables
from tapray.study.calibration import Calibration
from tapray.study.metrics import event_probability
from tapray.study.statistics import bootstrap_ap, paired_bootstrap_ap

__all__ = ["Prediction", "Predictions", "result_table", "summarise", "write_report", "write_tables"]

Cell = tuple[str, str, int]  # init, head, budget


def write_report(
    folder: Path,
    results: pd.DataFrame,
    trials: pd.DataFrame,
    predictions: Predictions,
    audit: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
) -> list[Path]:
    """Writes every table and figure and report.md into folder; returns their paths.

    results and trials as in `write_tables`; predictions of the final runs on the test set, the same crops in
    the same order for all of them; audit: what the leakage audit found, by name; history: the arrow accuracy
    as in `arrow_curve`, empty where nothing was pretrained. Each file is replaced as a whole, and the same
    input gives the same bytes. Raises ValueError where predictions are not of the same test crops.
    """
    summary, comparisons = write_tables(folder, results, trials), compare(results, trials)
    cells, pairs = test_intervals(predictions, comparisons, np.random.default_rng(0))
    paths = [folder / f"{name}.csv" for name in ("results", "trials", "summary", "comparisons")]
    paths += [
        write_csv(cells, folder / "test_intervals.csv"),
        write_csv(pairs, folder / "test_differences.csv"),
    ]
    paths += label_budget_curve(results, folder / "label_budget.png")
    paths += reliability_diagrams(predictions, folder / "reliability.png", np.random.default_rng(0))
    if history:
        paths += arrow_curve(history, folder / "arrow.png")
    text = page(summary, results, cells, pairs, audit, history, [path.name for path in paths])
    with beside(folder / "report.md") as part:
        part.write_text(text, encoding="utf-8")
    return [*paths, folder / "report.md"]


def test_intervals(
    predictions: Predictions, comparisons: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far the test crops, drawn anew by group, move the mean AP over seeds and its differences.

    Returns the cells (init, head, budget, test_low, test_high) and the AP rows of `compare` with test_low and
    test_high beside their interval over seeds.
    """
    first = next(iter(predictions.values()))
    labels, groups = np.asarray(first["labels"]), np.asarray(first["groups"])
    scores: dict[Cell, list[NDArray[np.float64]]] = {}
    for (init, head, budget, _), run in predictions.items():
        if not np.array_equal(run["labels"], labels):
            raise ValueError("predictions are not of the same test crops")
        fitted = Calibration(run["temperature"], tuple(run["bias"]))
        scores.setdefault((str(init), str(head), int(budget)), []).append(
            event_probability(fitted.apply(run["logits"]))
        )
    rows = [
        (*cell, *bootstrap_ap(labels, np.stack(own), groups, RESAMPLES, rng)) for cell, own in scores.items()
    ]
    cells = pd.DataFrame(rows, columns=["init", "head", "budget", "test_low", "test_high"])
    pairs = comparisons[comparisons["metric"] == "ap"].reset_index(drop=True)
    ends = []
    known: dict[tuple[Any, ...], tuple[float, float]] = {}  # a row "best" repeats that of its head
    for _, row in pairs.iterrows():
        sides = ((str(Init.TAP), row["head_tap"]), (row["other"], row["head_other"]))
        key = (*sides, int(row["budget"]))
        if key not in known:
            a, b = (np.stack(scores[init, head, key[-1]]) for init, head in sides)
            known[key] = paired_bootstrap_ap(labels, a, b, groups, RESAMPLES, rng)
        ends.append(known[key])
    low, high = zip(*ends, strict=True) if ends else ((), ())
    return cells, pairs.assign(test_low=low, test_high=high)
