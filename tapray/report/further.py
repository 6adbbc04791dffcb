"""The parts of a page that look further: labels needed, errors, attribution, about; and how numbers look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tapray.config import Init, Role
from tapray.report.captions import PARTS, picture
from tapray.report.labels import bounds
from tapray.report.tables import arrow_accuracy, short, test_set


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, left: bool = False) -> str:
    """A table in Markdown, columns to the right as numbers are, or to the left as words are."""
    lines = [header, [":---" if left else "---:"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_band(row: pd.Series, metric: str) -> str:
    """Mean of a summary row's metric, with its 95 % interval over seeds."""
    mean, low, high = (row[f"{metric}_{part}"] for part in ("mean", "low", "high"))
    return "-" if np.isnan(mean) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def with_interval(row: Mapping[Any, Any]) -> str:
    """The value of a row with its interval."""
    if row["value"] != row["value"]:
        return "-"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def signed(mean: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


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
    return f"## How many labels\n\n{text}\n\n{picture('what is to be had', 'fronts.png')}"


def _times(row: pd.Series, part: str, budgets: Sequence[int]) -> str:
    """A ratio in words: of budgets that were run, or beyond them."""
    least, most = (budget / row["budget"] for budget in (budgets[0], budgets[-1]))
    if np.isinf(row[part]):
        return f"> {most:.2g}"
    return f"≤ {least:.2g}" if row[part] <= least else f"{row[part]:.2g}"


def errors(found: pd.DataFrame) -> str:
    """Errors over time and by what is near, and the gallery."""
    first = found.iloc[0]
    text = [
        f"## Errors\n\n`{first['init']}` at {first['budget']} labels, at the threshold chosen on validation. "
        "Errors that gather in some frames point at the recording; those that gather near events at "
        "labels that begin too late or end too early. An event counts as found here whatever kind of event "
        "it is called: where there are several, precision and recall by class tell how often they are mixed "
        "up, and the gallery has the worst of them."
    ]
    for head in dict.fromkeys(found["head"]):
        text.append(picture(f"{head} head, errors over time", f"over_time_{head}.png"))
        text.append(picture(f"{head} head, errors by what is near", f"surroundings_{head}.png"))
    text.append(
        "### The most confident mistakes\n\nOf the saved model on the crops of the test part, at the "
        "threshold chosen on validation crops (`tapray predict` has one of its own, chosen on whole frames): "
        "both frames, and the first with the evidence and the Grad-CAM (the published way) of "
        f"{_looks(str(first['init']))}. `errors/mistakes.csv` holds them as an event table: give a row its "
        "class and a quality that counts, and list the file as an annotation with `overrules: true`. Then "
        "these rows take the place of what was annotated there, and the others change nothing; without it "
        "each of the others makes its place unknown, which takes the worst false positives out of the test "
        "set. Labels that are mended where the model errs, and nowhere else, make its test score too good: "
        "judge it on another movie then."
    )
    text.append(picture("mistakes", "mistakes.png"))
    return "\n\n".join(text)


def _looks(init: str) -> str:
    """Which net's attribution a gallery shows."""
    if Init(init).pretrained:
        return "the pretrained net of its encoder"
    return f"the first pretrained net (`{init}` has none)"


def attribution(numbers: pd.DataFrame) -> str:
    """What attribution finds, in numbers and pictures."""
    rows, parts = [], [part for part in (Role.TEST, Role.TRAIN) if part in set(numbers["part"])]
    for key, own in numbers.groupby(["part", "way", "net"], sort=False):
        part, way, net = map(str, key)
        values = own.set_index("metric").to_dict("index")
        shares = [
            _share(values[name]["value"]) if name in values else "" for name in ("mass_share", "area_share")
        ]
        found = [with_interval(values[name]) for name in ("enrichment", "auc")]
        alike = values.get("rank_correlation_with_random")
        like = f"{alike['value']:.2f}" if alike and alike["value"] == alike["value"] else ""
        rows.append(
            (PARTS[part], way.replace("_", "-"), net.replace("_minus_", " - "), *shares, *found, like)
        )
    near = ("of it near events", "of the ground near events")
    header = ("part", "attribution", "net", *near, "ratio", "AUC", "like an untrained net")
    pictures = {
        f"{way}, {PARTS[part]}": f"{way.replace('-', '_')}_{part}.png"
        for part in parts
        for way in ("evidence", "grad-cam")
    }
    pictures |= {"attribution over time": "attribution.gif"}
    pictures |= {f"dense features as colours, {PARTS[part]}": f"features_{part}.png" for part in parts}
    pictures |= {"map of the test crops": "crop_map.png"}
    shown = (picture(name, file) for name, file in pictures.items())
    return "\n\n".join([_attribution_text(all_seen=Role.TEST not in parts), table(header, rows), *shown])


def _attribution_text(*, all_seen: bool) -> str:
    """What the numbers of attribution mean; all_seen: pretraining has seen the frames of the test part."""
    text = (
        "### Where the order in time is read\n\nOn whole frames, without labels. `evidence` is the size of "
        "what every place adds to the arrow's logit or takes from it; `grad-cam` the published way, at the "
        "same features. Near an event is within its annotated radius. Places that are annotated as unknown "
        "do not count; all other ground counts as free of events, also where not every event is annotated: "
        "ratio and AUC are too low there. AUC is the chance that a place near an event has more attribution "
        "than another. Intervals draw blocks of time anew: few blocks, one net of each kind, so they are too "
        "narrow. `random_default` is an untrained net, and the difference is on the same draws; where both "
        "are alike (rank correlation near 1), a map shows the picture, not what was learned. Pretraining "
        "sees the parts that `pretrain.include` names."
    )
    if all_seen:
        text += " Here these hold the very frames of the test part, so nothing below is held out."
    return text


def about(told: Mapping[str, str]) -> list[str]:
    """How the report was made: a block of text for each title."""
    return [f"## {title}\n\n```\n{text.strip()}\n```" for title, text in told.items()]


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.2%}"


def in_short(summary: pd.DataFrame) -> str:
    """The label-budget table in Markdown, for the run's page in MLflow: rows of summary.csv."""
    first, ranked = summary.iloc[0], summary.sort_values(["budget", "ap_mean"], ascending=[True, False])
    header = ("init", "head", str(first["budget_unit"]), "average precision", "F1", "ECE before", "ECE after")
    rows = [(row["init"], row["head"], row["budget"], *short(row)) for _, row in ranked.iterrows()]
    said = f"Held-out test set: {test_set(first)}; split by {first['split']}, {first['n_seeds']} seeds."
    return f"{said} Arrow accuracy {arrow_accuracy(summary):.3f}.\n\n{table(header, rows)}\n"
