"""Figures of a study, each as PNG and SVG with a CSV of the plotted numbers. Colours: Okabe and Ito 2008."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from tapray.config import Init
from tapray.report.reliability import Prediction, Predictions, reliability_table
from tapray.report.tables import CELL, RANKS, beside, test_set, write_csv

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"
RED, BLACK, GREY = "#D55E00", "#000000", "#666666"
STYLES = {  # colour, marker, line: any one of the three tells the arms apart
    Init.TAP: (BLUE, "o", "-"),
    Init.RANDOM_DEFAULT: (ORANGE, "s", "--"),
    Init.RANDOM_PAPER: (PURPLE, "D", "-."),
    Init.END_TO_END: (GREEN, "^", ":"),
    Init.FINE_TUNE: (BLACK, "v", (0, (7, 2))),
    Init.IMAGENET: (RED, "P", (0, (3, 1, 1, 1))),
    Init.DIFFERENCE: (GREY, "X", (0, (1, 1))),
}
LOOK: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "svg.hashsalt": "tapray",  # same figure, same bytes
}


def label_budget_curve(summary: pd.DataFrame, path: Path) -> list[Path]:
    """Average precision against the number of labelled events, one panel per head, one line per
    initialisation.

    Points are means over seeds, bars 95 % intervals over seeds and test set, the thin line what chance
    reaches. Returns the paths of PNG (`path`), SVG and CSV.

    Args:
        summary: rows of summary.csv.
    """
    heads, inits = list(dict.fromkeys(summary["head"])), list(dict.fromkeys(summary["init"]))
    first = summary.iloc[0]
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(1.2 + 3.1 * len(heads), 3.7))
        axes = figure.subplots(1, len(heads), sharey=True, squeeze=False)[0]
        for head, panel in zip(heads, axes, strict=True):
            for place, init in enumerate(inits):
                rows = summary[(summary["head"] == head) & (summary["init"] == init)].sort_values("budget")
                _arm(panel, rows, init, dodge=1.025 ** (place - (len(inits) - 1) / 2))
            _line(panel, first["prevalence"], "chance")
            _budget_axis(panel, sorted(summary["budget"].unique()), str(first["budget_unit"]))
            panel.set_title(f"{head} head")
        axes[0].set_ylabel("average precision on the test set")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(inits))
        leaky = ", LEAKY" if summary["leaky"].any() else ""
        figure.supxlabel(
            f"n = {first['n_seeds']} seeds; bars: 95 % interval over seeds and test set\n"
            f"test: {test_set(first)}; split by {first['split']}{leaky}",
            fontsize=8,
            color=GREY,
        )
        columns = ["budget_unit", "n_seeds", "ap_mean", "ap_test_low", "ap_test_high", "prevalence"]
        return save(figure, summary[[*CELL, *columns]], path)


def _arm(panel: Axes, rows: pd.DataFrame, init: str, dodge: float) -> None:
    colour, marker, line = STYLES[Init(init)]
    reach = np.stack([rows["ap_mean"] - rows["ap_test_low"], rows["ap_test_high"] - rows["ap_mean"]]).clip(0)
    style: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "ms": 5, "lw": 1.5}
    bars: dict[str, Any] = {"yerr": np.nan_to_num(reach), "elinewidth": 1.2, "capsize": 2}
    panel.errorbar(rows["budget"] * dodge, rows["ap_mean"], label=init, **style, **bars)


def _budget_axis(panel: Axes, budgets: Sequence[int], unit: str) -> None:
    panel.set_xscale("log")
    panel.set_xticks(budgets)
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(budgets[0] / 1.25, budgets[-1] * 1.25)
    panel.set_ylim(0, 1.02)
    panel.set_xlabel(f"labelled {unit} (log scale)")


def _line(panel: Axes, height: float, name: str, below: bool = False) -> None:
    """What a useless model reaches."""
    panel.axhline(height, color=GREY, lw=0.8)
    offset, side = ((-4, -3), "top") if below else ((-4, 3), "bottom")
    at = panel.get_yaxis_transform()  # x in shares of the panel, y in data
    style: dict[str, Any] = {"xycoords": at, "textcoords": "offset points", "ha": "right", "va": side}
    panel.annotate(name, (1, height), xytext=offset, color=GREY, **style)


def reliability_diagrams(
    predictions: Predictions, init: str, path: Path, rng: np.random.Generator
) -> list[Path]:
    """Share of events against predicted probability on test, before and after calibration, with counts per
    bin.

    One row per head, of an init at its largest label budget.
    Points pool all seeds in 15 equal-width bins; bars are 95 % bootstrap intervals over blocks of the test
    set; the ECE is the mean over seeds with its Student t interval. Returns the paths of PNG (`path`), SVG
    and CSV.
    """
    budget = max(key[2] for key in predictions if key[0] == init)
    heads = sorted(
        {str(key[1]) for key in predictions if key[0] == init and key[2] == budget}, key=RANKS.__getitem__
    )
    tables = []
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(6.6, 4.2 * len(heads)))
        for block, head in zip(figure.subfigures(len(heads), 1, squeeze=False)[:, 0], heads, strict=True):
            runs: list[Prediction] = [
                run for key, run in predictions.items() if key[:3] == (init, head, budget)
            ]
            axes = block.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
            for column, stage in enumerate(("before", "after")):
                table, ece = reliability_table(runs, stage == "after", rng)
                _reliability_panel(axes[0, column], axes[1, column], table)
                axes[0, column].set_title(f"{stage} calibration: ECE {ece}")
                tables.append(table.assign(init=init, head=head, budget=budget, stage=stage))
            axes[0, 0].set_ylabel("share of events")
            axes[1, 0].set_ylabel("crops per seed")
            n, events = len(runs[0]["labels"]), int((np.asarray(runs[0]["labels"]) > 0).sum())
            block.suptitle(f"{init}, {head} head, budget {budget}", fontsize=9, fontweight="bold")
            note = f"n = {len(runs)} seeds, pooled; bars: 95 % bootstrap interval over blocks of the test set"
            note += f"\ntest: {n} crops, {events} with an event"
            block.supxlabel(note, fontsize=8, color=GREY)
        return save(figure, pd.concat(tables), path)


def _reliability_panel(panel: Axes, counts: Axes, table: pd.DataFrame) -> None:
    panel.plot([0, 1], [0, 1], color=GREY, lw=0.8)
    share = table["event_share"]
    # A bin seen in few resamples can have an interval that leaves out its own share; bars never turn inside
    # out.
    reach = np.stack([share - table["low"], table["high"] - share]).clip(0)
    panel.errorbar(
        table["probability"], share, yerr=np.nan_to_num(reach), color=BLUE, marker="o", ms=4, lw=1.2
    )
    panel.set_ylim(-0.03, 1.03)
    width = table["bin_high"] - table["bin_low"]
    counts.bar(
        table["bin_low"], table["crops_per_seed"], width=width, align="edge", color=SKY, ec="white", lw=0.6
    )
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.15)
    counts.set_xlabel("predicted probability of an event")


def arrow_curve(history: Sequence[Mapping[str, float]], path: Path) -> list[Path]:
    """Arrow accuracy against optimiser steps; entries hold step, arrow (training) and, some, val_arrow.

    Returns the paths of PNG (`path`), SVG and CSV.
    """
    table = pd.DataFrame(list(history), columns=["step", "arrow", "val_arrow"])
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(4.6, 3.0))
        panel = figure.subplots()
        training, validation = ("arrow", ORANGE, "s", "--"), ("val_arrow", BLUE, "o", "-")
        for name, colour, marker, line in (training, validation):
            label = "training crops" if name == "arrow" else "validation crops"
            known = table[table[name].notna()]
            style: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "ms": 4, "lw": 1.5}
            panel.plot(known["step"], known[name], label=label, **style)
        _line(panel, 0.5, "no arrow", below=True)
        values = table[["arrow", "val_arrow"]].to_numpy(float)
        panel.set_ylim(min(0.45, np.nanmin(values) - 0.02), max(0.8, np.nanmax(values) + 0.03))
        panel.set_xlabel("optimiser steps")
        panel.set_ylabel("arrow accuracy")
        panel.legend(loc="upper left")
        return save(figure, table, path)


def save(figure: Figure, numbers: pd.DataFrame, path: Path) -> list[Path]:
    """PNG, SVG and CSV beside each other; the same numbers give the same bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for panel in figure.axes:  # the layout solver's last digits differ from run to run
        panel.set_position(np.round(panel.get_position().bounds, 5).tolist())
    for kind, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        with beside(path.with_suffix(kind)) as part:
            figure.savefig(part, metadata=metadata)
    return [path, path.with_suffix(".svg"), write_csv(numbers, path.with_suffix(".csv"))]


def save_picture(figure: Figure, path: Path) -> Path:
    """PNG alone, for what shows pixels; the same figure gives the same bytes."""
    with beside(path) as part:
        figure.savefig(part, metadata={"Software": None})
    return path
