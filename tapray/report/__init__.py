"""The report of a study: tables, figures and one page that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.atomic import atomic_write
from tapray.config import Init
from tapray.report.figures import arrow_curve, label_budget_curve
from tapray.report.html import to_html
from tapray.report.labels import efficiency_table, front_figure, front_table, needed_table
from tapray.report.page import Told, page
from tapray.report.reliability import Prediction, Predictions, calibration_of
from tapray.report.tables import CELL, compare, result_table, summarise, write_csv, write_tables
from tapray.study.metrics import class_scores, predict_classes
from tapray.study.statistics import Difference, bootstrap_ap, bootstrap_f1, holm, paired_bootstrap_ap

__all__ = ["Prediction", "Predictions", "result_table", "summarise", "write_report", "write_tables"]

LOOKED = {"calibrate": "calibration", "errors": "errors", "explain": "attribution"}  # tables of stages
Cell = tuple[str, str, int]  # init, head, budget
TITLE = "Cell events from few labels"
N_RESAMPLES = 5000  # of the test set: p values below 0.05 after correction for up to a hundred comparisons


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
) -> list[Path]:
    """Writes every table and figure and report.html into folder; returns their paths.

    results and trials as in `write_tables`; predictions of the final runs on the test set, the same crops in
    the same order for all of them; audit: what the leakage audit found, by name; history: the arrow accuracy
    as in `arrow_curve`, empty where nothing was pretrained; beside: the folders of the stages calibrate,
    errors and explain, where they ran; about: how the report was made, by title; name: of the study; counts:
    labelled crops by SPLIT/LABEL. Each file is replaced as a whole, and the same input gives the same bytes.
    Raises ValueError where predictions are not of the same test crops.
    """
    summary, comparisons = write_tables(folder, results, trials), compare(results, trials)
    cells, pairs = test_intervals(predictions, comparisons, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    needed, saved = needed_table(results, rng), efficiency_table(results, trials, rng)
    tables = {"test_intervals": cells, "test_differences": pairs}
    tables |= {"labels_needed": needed, "label_efficiency": saved}
    paths = [folder / f"{name}.csv" for name in ("results", "trials", "summary", "comparisons")]
    paths += [write_csv(table, folder / f"{name}.csv") for name, table in tables.items()]
    paths += label_budget_curve(results, folder / "label_budget.png")
    unit = str(summary["budget_unit"].iloc[0])
    paths += front_figure(front_table(results, trials), unit, folder / "fronts.png")
    if history:
        paths += arrow_curve(history, folder / "arrow.png")
    looked = {
        name: pd.read_csv(beside[stage] / f"{name}.csv") for stage, name in LOOKED.items() if stage in beside
    }
    fitted = next(iter(predictions.values()))["val_labels"]
    fitted_on = len(fitted), int((np.asarray(fitted) > 0).sum())
    title = f"{name}: {TITLE.lower()}" if name else TITLE
    facts = (audit, counts, history, fitted_on, looked, about)
    told = Told(title, summary, results, cells, pairs, needed, saved, *facts)
    text = page(told, [path.name for path in paths])
    made = to_html(title, text, [folder, *beside.values()])
    atomic_write(folder / "report.html", made)
    return [*paths, folder / "report.html"]


def test_intervals(
    predictions: Predictions, comparisons: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far seeds and test set, both drawn anew, move the mean AP and its differences.

    Returns the cells (init, head, budget; test_low, test_high of AP; f1test_low, f1test_high of F1), and the
    AP rows of `compare` with test_low, test_high and p of the difference beside its interval over seeds,
    and p_holm, p corrected for all comparisons of the same `head` (of "best" or of one head).
    """
    first = next(iter(predictions.values()))
    labels, blocks = np.asarray(first["labels"]), np.asarray(first["blocks"])
    scores: dict[Cell, dict[int, NDArray[np.float64]]] = {}
    said: dict[Cell, list[NDArray[np.int64]]] = {}
    for (init, head, budget, seed), run in predictions.items():
        if not np.array_equal(run["labels"], labels):
            raise ValueError("predictions are not of the same test crops")
        fitted = calibration_of(run)
        probabilities, cell = fitted.apply(run["logits"]), (str(init), str(head), int(budget))
        scores.setdefault(cell, {})[seed] = class_scores(probabilities)
        said.setdefault(cell, []).append(predict_classes(probabilities, run["threshold"]))
    rows = [
        (
            *cell,
            *bootstrap_ap(labels, np.stack([*own.values()]), blocks, N_RESAMPLES, rng),
            *bootstrap_f1(labels, np.stack(said[cell]), blocks, N_RESAMPLES, rng),
        )
        for cell, own in scores.items()
    ]
    cells = pd.DataFrame(rows, columns=[*CELL, "test_low", "test_high", "f1test_low", "f1test_high"])
    pairs = comparisons[comparisons["metric"] == "ap"].reset_index(drop=True)
    known: dict[tuple[Any, ...], Difference] = {}  # a row "best" repeats that of its head
    found = []
    for _, row in pairs.iterrows():
        sides = ((str(Init.TAP), row["head_tap"]), (row["other"], row["head_other"]))
        key = (*sides, int(row["budget"]))
        if key not in known:
            a, b = (scores[init, head, key[-1]] for init, head in sides)
            seeds = sorted(a.keys() & b.keys())
            tap, other = (np.stack([side[seed] for seed in seeds]) for side in (a, b))
            known[key] = paired_bootstrap_ap(labels, tap, other, blocks, N_RESAMPLES, rng)
        found.append(known[key])
    named = {"test_low": "low", "test_high": "high", "p": "p"}
    pairs = pairs.assign(**{name: [getattr(one, own) for one in found] for name, own in named.items()})
    corrected = pairs.groupby("head")["p"].transform(lambda own: holm(own.to_numpy()))
    return cells, pairs.assign(p_holm=corrected)
