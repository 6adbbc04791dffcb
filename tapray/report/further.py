"""The parts of a page that look further: labels needed, other calibration, errors, attribution, about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tapray.report.labels import bounds
from tapray.report.tables import arrow_accuracy, short, test_set

_SCORES = {
    "ece": "ECE",
    "ece_equal_mass": "ECE, bins of equal mass",
    "ece_top_label": "ECE of the likeliest class",
    "mce": "MCE",
    "nll": "NLL",
    "brier": "Brier",
    "brier_reliability": "its reliability",
    "brier_resolution": "its resolution",
}
_PARTS = {"train": "training part", "test": "test part"}


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---:"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def how_many_labels(summary: pd.DataFrame, needed: pd.DataFrame, saved: pd.DataFrame) -> str:
    """Labels that an arm needs, and what tap saves."""
    unit, budgets = str(summary["budget_unit"].iloc[0]), sorted(summary["budget"].unique())
    if len(budgets) < 2:
        return "## How many labels\n\nOne budget was run: two are needed to tell how many labels suffice."
    wide = []
    for (init, head), rows in needed.groupby(["init", "head"], sort=False):
        parts = [
            [bounds(row[part], budgets) for part in ("needed", "low", "high")] for _, row in rows.iterrows()
        ]
        wide.append((init, head, *(f"{value} [{low}, {high}]" for value, low, high in parts)))
    targets = [f"F1 of {target:.1f}" for target in dict.fromkeys(needed["target"])]
    text = (
        f"Labelled {unit} needed, read off the line through the mean F1 at the budgets that were run, with "
        f"the 95 % interval over seeds and test set.\n\n{table(('init', 'head', *targets), wide)}"
    )
    ap = saved[saved["metric"] == "ap"]
    times = [
        (row["budget"], row["other"], *(_times(row, part, budgets) for part in ("ratio", "low", "high")))
        for _, row in ap.iterrows()
    ]
    if times:
        header = (unit, "other", "labels for the AP of tap, over its own", "low", "high")
        text += f"\n\nWhat `tap` saves:\n\n{table(header, times)}"
    return f"## How many labels\n\n{text}\n\n![what is to be had](fronts.png)"


def _times(row: pd.Series, part: str, budgets: Sequence[int]) -> str:
    """A ratio in words: of budgets that were run, or beyond them."""
    least, most = (budget / row["budget"] for budget in (budgets[0], budgets[-1]))
    if np.isinf(row[part]):
        return f"> {most:.2g}"
    return f"≤ {least:.2g}" if row[part] <= least else f"{row[part]:.2g}"


def methods(calibration: pd.DataFrame, init: str) -> str:
    """Every way to calibrate an init at its largest budget; `calibration_table` gives it."""
    own = calibration[calibration["init"] == init]
    own = own[own["budget"] == own["budget"].max()]
    rows = []
    for (head, method), cell in own.groupby(["head", "method"], sort=False):
        by_metric = cell.set_index("metric")
        ece = by_metric.loc["ece"]
        change = f"{ece['change']:+.3f} [{ece['change_low']:+.3f}, {ece['change_high']:+.3f}]"
        others = [f"{by_metric.loc[name, 'value']:.3f}" for name in _SCORES if name != "ece"]
        rows.append((head, method.replace("_", " and "), _with_interval(ece.to_dict()), change, *others))
    header = ("head", "fitted on validation", "ECE", "change of ECE", *list(_SCORES.values())[1:])
    return (
        f"### Other ways to calibrate\n\n`{init}`, of which the model is, at {own['budget'].iloc[0]} labels. "
        "It has temperature and bias. Intervals are over seeds and blocks of the test set.\n\n"
        f"{table(header, rows)}\n\n![reliability before and after calibration](reliability.png)"
    )


def errors(found: pd.DataFrame) -> str:
    """Errors over time and by what is near, and the gallery."""
    first = found.iloc[0]
    text = [
        f"## Errors\n\n`{first['init']}` at {first['budget']} labels, at the threshold chosen on validation. "
        "Errors that gather in some frames point at the recording; those that gather near events at "
        "labels that begin or end too late."
    ]
    for head in dict.fromkeys(found["head"]):
        text.append(f"![{head} head, errors over time](over_time_{head}.png)")
        text.append(f"![{head} head, errors by what is near](surroundings_{head}.png)")
    text.append(
        "### The most confident mistakes\n\nOf the saved model on the crops of the test part, at the "
        "threshold chosen on validation crops (`tapray predict` has one of its own, chosen on whole frames): "
        "both frames, and the second with the attribution of the pretrained net. `errors/mistakes.csv` holds "
        "them as an event table: give a row its class and a quality that counts, and name the file as an "
        "annotation. Labels that are mended where the model errs, and nowhere else, make its test score too "
        "good: after that, judge it on another movie."
    )
    text.append("![mistakes](mistakes.png)")
    return "\n\n".join(text)


def attribution(numbers: pd.DataFrame) -> str:
    """What attribution finds, in numbers and pictures."""
    rows = []
    for key, own in numbers.groupby(["part", "way", "net"], sort=False):
        part, way, net = map(str, key)
        values = own.set_index("metric").to_dict("index")
        shares = [
            _share(values[name]["value"]) if name in values else "" for name in ("mass_share", "area_share")
        ]
        found = [_with_interval(values[name]) for name in ("enrichment", "auc")]
        alike = values.get("rank_correlation_with_random")
        like = f"{alike['value']:.2f}" if alike and alike["value"] == alike["value"] else ""
        rows.append(
            (_PARTS[part], way.replace("_", "-"), net.replace("_minus_", " - "), *shares, *found, like)
        )
    near = ("of it near events", "of the ground near events")
    header = ("part", "attribution", "net", *near, "ratio", "AUC", "like a net of chance")
    text = (
        "### Where the order in time is read\n\nOn whole frames, without labels. `evidence` is the size of "
        "what every place adds to the arrow's logit or takes from it; `grad-cam` the published way, at the "
        "same features. Near an event is within its annotated radius, and ground of which nothing is known "
        "does not count; AUC is the chance that a place near an event has more attribution than another. "
        "Intervals draw blocks of time anew. Beside it a net of chance, and the difference on the same "
        "draws; where both are alike (rank correlation near 1), a map shows the picture, not what was "
        "learned. Where not every event is annotated, the ratio is too low."
    )
    pictures = {
        "evidence, test part": "evidence_test.png",
        "grad-cam, test part": "grad_cam_test.png",
        "evidence, training part": "evidence_train.png",
        "grad-cam, training part": "grad_cam_train.png",
        "attribution over time": "attribution.gif",
        "dense features as colours": "features_test.png",
        "map of the test crops": "crop_map.png",
    }
    shown = (f"![{name}]({file})" for name, file in pictures.items())
    return "\n\n".join([text, table(header, rows), *shown])


def about(told: Mapping[str, str]) -> list[str]:
    """How the report was made: a block of text for each title."""
    return [f"## {title}\n\n```\n{text.strip()}\n```" for title, text in told.items()]


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.2%}"


def _with_interval(row: Mapping[Any, Any]) -> str:
    if row["value"] != row["value"]:
        return "-"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def in_short(summary: pd.DataFrame) -> str:
    """The label-budget table in Markdown, for the run's page in MLflow: mean and half the 95 % interval."""
    first, ranked = summary.iloc[0], summary.sort_values(["budget", "ap_mean"], ascending=[True, False])
    header = ("init", "head", str(first["budget_unit"]), "average precision", "F1", "ECE")
    rows = [
        (row["init"], row["head"], row["budget"], *(short(row, name) for name in ("ap", "f1", "ece_after")))
        for _, row in ranked.iterrows()
    ]
    said = f"Held-out test set: {test_set(first)}; split by {first['split']}, {first['n_seeds']} seeds."
    return f"{said} Arrow accuracy {arrow_accuracy(summary):.3f}.\n\n{table(header, rows)}\n"
