"""The Markdown page of a report: what was asked, what came out, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tapray.config import Init, Role
from tapray.data.places import CLASS_NAMES
from tapray.pretrain.evaluate import ARROW_FLOOR
from tapray.report import calibration_text, further, glossary
from tapray.report.captions import picture
from tapray.report.further import signed, table, with_band
from tapray.report.tables import arrow_accuracy, test_set
from tapray.study.results import best_run

AUDITED = {
    "n_test": "test crops",
    "train": "share that overlaps a training crop",
    "val": "share that overlaps a validation crop",
    "pretrain": "share that overlaps what pretraining has seen",
}


FEW_GROUPS = 20  # with fewer, percentiles of a bootstrap cover less than they say
ALPHA = 0.05  # a corrected p below it is a difference that holds beyond these runs


@dataclass(frozen=True)
class Told:
    """All that a page tells.

    summary: as summary.csv; pairs: as `tapray.report.intervals` makes them; needed and saved: as
    `tapray.report.labels` does; looked: the tables calibration, errors and attribution of the stages
    before, where they ran; about: what is told of how the report was made, by title.
    """

    title: str
    summary: pd.DataFrame
    results: pd.DataFrame
    pairs: pd.DataFrame
    needed: pd.DataFrame
    saved: pd.DataFrame
    audit: Mapping[str, Any]
    counts: Mapping[str, int]  # labelled crops by SPLIT/LABEL
    events: Mapping[str, int]  # labelled events by split
    history: Sequence[Mapping[str, float]]
    fitted_on: tuple[int, int]  # crops of the validation part, and those of events
    n_groups: int  # fields of view or blocks of time of the test set
    looked: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


def page(told: Told, files: Sequence[str]) -> str:
    """The whole page as Markdown; files: by name, those that lie beside it."""
    sections = [
        _question(told.title, told.summary, told.results, told.n_groups),
        _claims(told.pairs, told.results),
        glossary.words(told.results),
        _data(told.summary, told.audit, told.counts, told.events),
        _budgets(told.summary),
        further.how_many_labels(told.summary, told.needed, told.saved),
        calibration_text.before_and_after(
            told.summary, told.looked.get("calibration"), told.fitted_on, told.events.get(Role.VAL.value)
        ),
    ]
    looked = told.looked
    best = str(best_run(told.results)["init"])
    sections += [calibration_text.methods(looked["calibration"], best)] if "calibration" in looked else []
    sections += [further.errors(looked["errors"])] if "errors" in looked else []
    sections.append(_arrow(told.results, told.history))
    sections += [further.attribution(looked["attribution"])] if "attribution" in looked else []
    sections += [_further(files, told.results), *further.about(told.about)]
    return "\n\n".join(sections) + "\n"


def _question(title: str, summary: pd.DataFrame, results: pd.DataFrame, n_groups: int) -> str:
    first = summary.iloc[0]
    leaky = (
        "\n\n**LEAKY: test crops overlap training crops under this split. "
        "These scores say nothing about a new movie.**"
        if summary["leaky"].any()
        else ""
    )
    return (
        f"# {title}\n\n"
        "How well does an event head find cell events on ground it has never seen, from few labelled events, "
        "and does time arrow pretraining (`tap`) beat the other initialisations?\n\n"
        f"Split by {first['split']}. Test set: {test_set(first)}, the same for every run. "
        f"Numbers are means over {first['n_seeds']} seeds. Brackets hold 95 % intervals, in tables over "
        "seeds (Student t) unless a column says otherwise; those over seeds and test set draw both anew, the "
        f"test set by {n_groups} whole fields of view or blocks of time{_few(n_groups)}. "
        f"{_shared(summary, results)}"
        f"Average precision (AP) is {first['prevalence']:.3f} by chance.{leaky}"
    )


def _few(n_groups: int) -> str:
    return " (so few that these intervals are too narrow)" if n_groups < FEW_GROUPS else ""


def _shared(summary: pd.DataFrame, results: pd.DataFrame) -> str:
    """Which arms have fewer encoders than seeds."""
    encoders = results.groupby("init")["encoder"].nunique()
    inits = [Init(init) for init in summary["init"].unique()]
    few = [init for init in inits if init.is_tap and encoders[init] < summary.iloc[0]["n_seeds"]]
    each = ", ".join(f"`{init}` {encoders[init]}" for init in few)
    if not few:
        return ""
    return (
        f"The seeds share encoders ({each}): their luck is in no interval over seeds, and in those over "
        "seeds and test set where there are several. "
    )


def _claims(pairs: pd.DataFrame, results: pd.DataFrame) -> str:
    """One line per budget and baseline, with the heads chosen on validation where search trials tell them."""
    lines, claims = [], pairs[pairs["claimed"]].sort_values("budget", kind="stable")
    for _, row in claims.iterrows():
        difference = signed(row["difference"], row["test_low"], row["test_high"])
        lines.append(
            f"- At {row['budget']} {row['budget_unit']} `tap` ({_side(row, 'tap')}) {_verdict(row)} "
            f"`{row['other']}` ({_side(row, 'other')}): {difference} AP over {row['n_seeds']} seeds and the "
            f"test set, p = {row['p_holm']:.2g}."
        )
    text = "\n".join(lines) or "`tap` or a baseline to set it against is not among the runs."
    how = (
        f"Heads are chosen by validation AP. The p values are corrected for the {len(claims)} comparisons of "
        "this list; intervals and p draw seeds, the encoders that they share, and the test set anew."
    )
    parts = [how, text] if lines else [text]
    return "\n\n".join([f"## Result\n\n{_warning(results)}{parts[0]}", *parts[1:]])


def _verdict(row: pd.Series) -> str:
    """Of a claim; seeds alone, on this test set, say less than all that was drawn."""
    if row["p_holm"] < ALPHA:
        return "beats" if row["difference"] > 0 else "is beaten by"
    if row["low"] > 0 or row["high"] < 0:
        ahead = "ahead of" if row["difference"] > 0 else "behind"
        return f"is {ahead} (in these runs; other encoders or other test data may say otherwise)"
    return "is not told apart from"


def _warning(results: pd.DataFrame) -> str:
    if not arrow_accuracy(results) < ARROW_FLOOR:  # nor where nothing was pretrained
        return ""
    return (
        "**WARNING: the arrow accuracy has not left 0.5. The pretraining has learned next to "
        "nothing, and no comparison on this page is a test of time arrow prediction. Train longer, or "
        "draw crops where something changes (`pretrain.sampler: change`).**\n\n"
    )


def _side(row: pd.Series, side: str) -> str:
    return f"{row[f'head_{side}']} head, AP {row[f'mean_{side}']:.3f}"


def _data(
    summary: pd.DataFrame, audit: Mapping[str, Any], crops: Mapping[str, int], events: Mapping[str, int]
) -> str:
    sizes = summary.drop_duplicates("budget").sort_values("budget")
    rows = [
        (row["budget"], f"{row['n_events_train']:.0f}", f"{row['n_train']:.0f}")
        for _, row in sizes.iterrows()
    ]
    counts = table(
        (str(summary["budget_unit"].iloc[0]), "events among the training crops", "training crops"), rows
    )
    found = table(("leak audit", "value"), ((AUDITED.get(k, k), _value(v)) for k, v in audit.items()))
    return "\n\n".join(["## Data and leak audit", *_crops(crops), *_pool(events, summary), counts, found])


def _pool(events: Mapping[str, int], summary: pd.DataFrame) -> list[str]:
    """What budgets are drawn from, and what they do not count."""
    if not events:
        return []
    train, val, test = (events[role.value] for role in (Role.TRAIN, Role.VAL, Role.TEST))
    most = summary["n_events_train"].max()
    alike = (
        f" Draws of {most:.0f} of {train} events share most of them: at the largest budget intervals hold "
        "little of the luck of which events were labelled."
    )
    return [
        f"Labelled events: {train} of training, from which budgets are drawn, {val} of validation and {test} "
        "of test. Settings, calibration and thresholds are chosen on those of validation, which come on top "
        f"of every budget.{alike if most > train / 2 else ''}"
    ]


def _crops(counts: Mapping[str, int]) -> list[str]:
    """Labelled crops by split and class: all that there are, of which budgets take some."""
    if not counts:
        return []
    labels = sorted({int(key.partition("/")[2]) for key in counts})
    names = CLASS_NAMES[max(2, labels[-1] + 1)]
    rows = [
        (split.value, *(counts.get(f"{split.value}/{label}", 0) for label in range(len(names))))
        for split in Role
    ]
    return [table(("labelled crops", *names), rows)]


def _budgets(summary: pd.DataFrame) -> str:
    deaths = summary["precision_2_mean"].notna().any()
    by_class = [f"{name}_{label}" for label in (1, 2)[: 1 + deaths] for name in ("precision", "recall")]
    rows = []
    for _, row in summary.sort_values("budget", kind="stable").iterrows():
        test, of_f1 = (
            f"[{row[f'{name}_test_low']:.3f}, {row[f'{name}_test_high']:.3f}]" for name in ("ap", "f1")
        )
        others = (with_band(row, metric) for metric in by_class)
        cell = (row["budget"], row["init"], row["head"])
        rows.append((*cell, with_band(row, "ap"), test, with_band(row, "f1"), of_f1, *others))
    unit = str(summary["budget_unit"].iloc[0])
    header = (
        unit,
        "init",
        "head",
        "AP",
        "AP over seeds and test set",
        "F1",
        "F1 over seeds and test set",
        *(f"{name} of class {label}" for name, _, label in (each.partition("_") for each in by_class)),
    )
    return f"## Label budget\n\n{table(header, rows)}\n\n{picture('label-budget curve', 'label_budget.png')}"


def _arrow(results: pd.DataFrame, history: Sequence[Mapping[str, float]]) -> str:
    accuracy = arrow_accuracy(results)
    text = f"Arrow accuracy on held-out crops: {accuracy:.3f} (chance 0.5)."
    if np.isnan(accuracy):
        text = "No arm of this study has the pretrained encoder."
    curve = f"\n\n{picture('arrow accuracy', 'arrow.png')}" if history else ""
    return f"## Arrow of time\n\n{text}{curve}"


def _further(names: Sequence[str], results: pd.DataFrame) -> str:
    best = best_run(results)
    which = (
        f"`{best['init']}`, {best['head']} head, {best['budget']} {best['budget_unit']}, seed {best['seed']}"
    )
    model = f"{which}: of the largest budget the run best on validation (AP {best['val_ap']:.3f})"
    links = "\n".join(f"- [{name}]({name})" for name in names)
    return (
        "## Look further\n\n`tapray ui` opens the comparison page of all runs; `tapray predict` finds "
        "events in another movie; `comparisons.csv` holds the paired differences for every head and metric, "
        f"`trials.csv` the search. `model/` holds {model}.\n\n"
        f"Links work inside the run folder only.\n\n{links}"
    )


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
