"""The report of a study: tables, figures and one page that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from tapray.atomic import atomic_write
from tapray.report.figures import arrow_curve, label_budget_curve
from tapray.report.html import to_html
from tapray.report.intervals import cell_intervals, pair_intervals, resample
from tapray.report.labels import efficiency_table, front_figure, front_table, needed_table
from tapray.report.page import Told, page
from tapray.report.reliability import Prediction, Predictions
from tapray.report.tables import CELL, compare, result_table, summarise, write_csv, write_tables

__all__ = ["Prediction", "Predictions", "result_table", "summarise", "write_report", "write_tables"]

LOOKED = {"calibrate": "calibration", "errors": "errors", "explain": "attribution"}  # tables of stages
TITLE = "Cell events from few labels"
N_RESAMPLES = 10_000  # p values below 0.05 after correction for up to 250 comparisons


def write_report(
    folder: Path,
    results: pd.DataFrame,
    trials: pd.DataFrame,
    predictions: Predictions,
    audit: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    beside: Mapping[str, Path] = MappingProxyType({}),
    about: Mapping[str, str] = MappingProxyType({}),
    *,
    name: str = "",
    counts: Mapping[str, int] = MappingProxyType({}),
    events: Mapping[str, int] = MappingProxyType({}),
) -> list[Path]:
    """Writes every table and figure and report.html into folder; returns their paths.

    results and trials as in `write_tables`; predictions of the final runs on the test set, the same crops in
    the same order for all of them; audit: what the leakage audit found, by name; history: the arrow accuracy
    as in `arrow_curve`, empty where nothing was pretrained; beside: the folders of the stages calibrate,
    errors and explain, where they ran; about: how the report was made, by title; name: of the study; counts:
    labelled crops by SPLIT/LABEL; events: labelled events by split. Each file is replaced as a whole, and the
    same input gives the same bytes. Raises ValueError where predictions are not of the same test crops.
    """
    paths, comparisons = write_tables(folder, results, trials), compare(results, trials)
    rng = np.random.default_rng(0)
    resampled = resample(predictions, N_RESAMPLES, rng)
    cells, pairs = cell_intervals(resampled, rng), pair_intervals(resampled, comparisons, rng)
    summary = summarise(results).merge(cells, how="left", on=CELL)
    needed = needed_table(results, resampled, rng)
    saved = efficiency_table(results, trials, resampled, rng)
    tables = {"summary": summary, "comparisons": comparisons, "test_differences": pairs}
    tables |= {"labels_needed": needed, "label_efficiency": saved}
    paths += [write_csv(table, folder / f"{name}.csv") for name, table in tables.items()]
    paths += label_budget_curve(summary, folder / "label_budget.png")
    unit = str(summary["budget_unit"].iloc[0])
    paths += front_figure(front_table(results, trials), unit, folder / "fronts.png")
    if history:
        paths += arrow_curve(history, folder / "arrow.png")
    title = f"{name}: {TITLE.lower()}" if name else TITLE
    seen = (history, _fitted_on(predictions), resampled.n_groups, _looked(beside))
    told = Told(title, summary, results, pairs, needed, saved, audit, counts, events, *seen, about)
    text = page(told, [path.name for path in paths])
    atomic_write(folder / "report.html", to_html(title, text, [folder, *beside.values()]))
    return [*paths, folder / "report.html"]


def _fitted_on(predictions: Predictions) -> tuple[int, int]:
    """Crops of the validation part, and those of events."""
    fitted = next(iter(predictions.values()))["val_labels"]
    return len(fitted), int((np.asarray(fitted) > 0).sum())


def _looked(beside: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """The tables of the stages before, where they ran."""
    return {
        name: pd.read_csv(beside[stage] / f"{name}.csv") for stage, name in LOOKED.items() if stage in beside
    }
