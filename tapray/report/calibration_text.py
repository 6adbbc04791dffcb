"""The part of a page on calibration: before and after it, and beside other ways."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tapray.report.captions import picture
from tapray.report.further import signed, table, with_band, with_interval

FEW_EVENTS = 10  # of validation; with fewer, what is fitted is the draw of these events
Change = tuple[float, float, float]  # a difference, and the ends of its interval
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
    summary: pd.DataFrame,
    calibration: pd.DataFrame | None,
    fitted_on: tuple[int, int],
    val_events: int | None,
) -> str:
    """What temperature and bias change in every cell.

    Args:
        summary: as summary.csv; calibration: as `calibration_table` makes it, where that stage ran.
        fitted_on: crops of the validation part, and those of events; val_events: its events, where known.
    """
    changes = None if calibration is None else _changes(calibration)
    rows, told = [], list[tuple[str, Change]]()
    for _, row in summary.sort_values("budget", kind="stable").iterrows():
        change = None if changes is None else changes[row["init"], row["head"], row["budget"]]
        if change is not None:
            sign = "below" if row["ece_before_mean"] < row["ece_constant_mean"] else "above"
            name = (
                f"`{row['init']}` {row['head']} at {row['budget']} ({signed(*change)}; before, its ECE was "
                f"{row['ece_before_mean']:.3f}, {sign} that of the constant answer)"
            )
            told.append((name, change))
        ece = (with_band(row, "ece_before"), with_band(row, "ece_after"), signed(*change) if change else "-")
        rows.append((row["budget"], row["init"], row["head"], *ece, with_band(row, "temperature")))
    unit, constant = str(summary["budget_unit"].iloc[0]), summary["ece_constant_mean"].iloc[0]
    header = (unit, "init", "head", "ECE before", "ECE after", "change", "temperature")
    return (
        "## Calibration\n\nTemperature, where the study does not set it, and bias are fitted on "
        f"{fitted_on[0]} validation crops, {fitted_on[1]} of them of events, and judged on test. ECE is that "
        "of the event probability at the test set's own prevalence (15 equal-width bins), with intervals "
        "over seeds, of its change over seeds and test set. A model that "
        f"always answers the prevalence it was fitted at has an ECE of {constant:.3f} and finds nothing: "
        f"read the ECE beside AP.{_told(told, val_events)}\n\n{table(header, rows)}"
    )


def _changes(calibration: pd.DataFrame) -> dict[tuple[str, str, int], Change]:
    """Of the ECE by temperature and bias, in every cell."""
    own = calibration[(calibration["metric"] == "ece") & (calibration["method"] == "temperature_bias")]
    keys = zip(own["init"], own["head"], own["budget"], strict=True)
    values = zip(own["change"], own["change_low"], own["change_high"], strict=True)
    return dict(zip(keys, values, strict=True))


def _told(changes: Sequence[tuple[str, Change]], val_events: int | None) -> str:
    """In how many cells the ECE fell, where it rose, and in how many that cannot be told."""
    if not changes:
        return ""
    fallen = sum(high < 0 for _, (_, _, high) in changes)
    risen = [name for name, (_, low, _) in changes if low > 0]
    others = len(changes) - fallen - len(risen)
    text = f" The ECE falls in {fallen} of {len(changes)} rows"
    text += f", in {others} its change is not told apart from none" if others else ""
    text += f"; it rises for {'; '.join(risen)}" if risen else ""
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
