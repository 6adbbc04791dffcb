"""The part of a page on calibration: before and after it, and beside other ways."""

from __future__ import annotations

import pandas as pd

from tapray.report.captions import picture
from tapray.report.further import signed, table, with_band, with_interval
from tapray.study.statistics import paired_interval

FEW_EVENTS = 10  # of validation; with fewer, what is fitted is the draw of these events
_SCORES = {
    "ece": "ECE",
    "ece_equal_mass": "ECE, bins of equal mass",
    "ece_top_label": "ECE of the likeliest class",
    "mce": "MCE",
    "nll": "NLL",
    "brier": "Brier",
    "brier_reliability": "its reliability",
    "brier_resolution": "its resolution",
    "brier_uncertainty": "its uncertainty",
}


def before_and_after(
    summary: pd.DataFrame, results: pd.DataFrame, fitted_on: tuple[int, int], val_events: int | None
) -> str:
    """What temperature and bias change in every cell.

    Args:
        fitted_on: crops of the validation part, and those of events; val_events: its events, where known.
    """
    rows, changes = [], list[tuple[str, tuple[float, float, float]]]()
    for _, row in summary.sort_values("budget", kind="stable").iterrows():
        runs = results[(results[["init", "head", "budget"]] == row[["init", "head", "budget"]]).all(axis=1)]
        change = paired_interval(runs["ece_after"].to_numpy(float), runs["ece_before"].to_numpy(float))
        sign = "below" if row["ece_before_mean"] < row["ece_constant_mean"] else "above"
        changes.append(
            (
                f"`{row['init']}` {row['head']} at {row['budget']} ({signed(*change)}; before, its ECE was "
                f"{row['ece_before_mean']:.3f}, {sign} that of the constant answer)",
                change,
            )
        )
        ece = (with_band(row, "ece_before"), with_band(row, "ece_after"), signed(*change))
        rows.append((row["budget"], row["init"], row["head"], *ece, with_band(row, "temperature")))
    unit, constant = str(summary["budget_unit"].iloc[0]), summary["ece_constant_mean"].iloc[0]
    header = (unit, "init", "head", "ECE before", "ECE after", "change", "temperature")
    return (
        f"## Calibration\n\nTemperature and bias are fitted on {fitted_on[0]} validation crops, "
        f"{fitted_on[1]} of them of events, and judged on test. ECE is that "
        "of the event probability at the test set's own prevalence (15 equal-width bins). A model that "
        f"always answers the prevalence it was fitted at has an ECE of {constant:.3f} and finds nothing: "
        f"read the ECE beside AP. {_told(changes, val_events)}\n\n{table(header, rows)}"
    )


def _told(changes: list[tuple[str, tuple[float, float, float]]], val_events: int | None) -> str:
    """In which cells the ECE fell, where it rose, and where that cannot be told."""
    fallen = sum(mean < 0 for _, (mean, _, _) in changes)
    risen = [name for name, (_, low, _) in changes if low > 0]
    others = [name for name, (mean, low, _) in changes if not mean < 0 and not low > 0]
    text = f"The mean ECE falls in {fallen} of {len(changes)} rows"
    text += f"; it rises for {'; '.join(risen)}" if risen else ""
    text += f"; not told apart from none is the change for {'; '.join(others)}" if others else ""
    few = (risen or others) and val_events is not None and val_events < FEW_EVENTS
    return text + (f". So few validation events ({val_events}) leave it to chance." if few else ".")


def methods(calibration: pd.DataFrame, init: str) -> str:
    """Every way to calibrate an init at its largest budget; `calibration_table` gives it."""
    own = calibration[calibration["init"] == init]
    own = own[own["budget"] == own["budget"].max()]
    rows = []
    for (head, method), cell in own.groupby(["head", "method"], sort=False):
        by_metric = cell.set_index("metric")
        ece = by_metric.loc["ece"]
        change = signed(ece["change"], ece["change_low"], ece["change_high"])
        others = [f"{by_metric.loc[name, 'value']:.3f}" for name in _SCORES if name != "ece"]
        rows.append((head, method.replace("_", " and "), with_interval(ece.to_dict()), change, *others))
    header = ("head", "fitted on validation", "ECE", "change of ECE", *list(_SCORES.values())[1:])
    return (
        f"### Other ways to calibrate\n\n`{init}`, of which the model is, at {own['budget'].iloc[0]} labels. "
        "It has temperature and bias. Intervals are over seeds and blocks of the test set; calibration is "
        "fitted once for each seed, on the validation crops that all seeds share, and these are not drawn "
        "anew. The Brier score is its reliability less its resolution plus its uncertainty, up to the spread "
        f"within bins.\n\n{table(header, rows)}\n\n"
        f"{picture('reliability before and after calibration', 'reliability.png')}"
    )
