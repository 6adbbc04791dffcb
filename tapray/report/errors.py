"""Pictures of where an event head errs, and the gallery of its most confident mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tapray.report.figures import BLACK, BLUE, GREY, LOOK, ORANGE, RED, SKY, save, save_picture

# Of both panels over time: the errors, what is right of the same answer, and what the truth is.
OVER_TIME = (
    (("false_positive", ORANGE, "o"), ("true_positive", BLUE, "s"), ("positive", GREY, "")),
    (("false_negative", RED, "o"), ("true_negative", SKY, "s"), ("negative", GREY, "")),
)


def over_time(errors: pd.DataFrame, head: str, path: Path) -> list[Path]:
    """Shares of all false positives, true positives and positives by frame, and of the negatives beside them,
    with 95 % intervals of the errors (arXiv 2411.03924, figure 4).

    errors: as `tapray.insight.errors.error_table`, of one cell. Returns PNG (`path`), SVG and CSV.
    """
    own = errors[errors["dimension"] == "frame"]
    names = list(dict.fromkeys(own["bin"]))
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9, 3.4))
        for panel, quantities in zip(figure.subplots(1, 2), OVER_TIME, strict=True):
            for quantity, colour, marker in quantities:
                rows = own[own["quantity"] == quantity].set_index("bin").loc[names]
                at = np.arange(len(names))
                label = f"{quantity.replace('_', ' ')}s ({rows['crops'].sum():.1f} a seed)"
                if not marker:
                    panel.bar(at, rows["value"], color="#dddddd", label=label, zorder=0)
                    continue
                panel.plot(at, rows["value"], color=colour, marker=marker, ms=4, lw=1.3, label=label)
                if quantity.startswith("false"):
                    panel.fill_between(at, rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
            _ticks(panel, names)
            panel.set(xlabel="frame of the movie", ylabel="share of all of its kind", ylim=(0, None))
            panel.legend(fontsize=8)
        figure.suptitle(f"{head} head: errors over time; bands: 95 % over seeds and blocks of the test set")
        return save(figure, own, path)


def by_surroundings(errors: pd.DataFrame, head: str, path: Path) -> list[Path]:
    """Rates of false positives and of misses by every other dimension; returns PNG (`path`), SVG and CSV."""
    rates = errors[errors["quantity"].isin(["false_positive_rate", "miss_rate"])]
    rates = rates[(rates["dimension"] != "frame") & (rates["crops"] > 0)]
    dimensions = list(dict.fromkeys(rates["dimension"]))
    order = {str(name): list(dict.fromkeys(own["bin"])) for name, own in errors.groupby("dimension")}
    highest = float(np.nanmax(rates[["value", "high"]].to_numpy()))
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9, 2.7 * -(-len(dimensions) // 3)))
        panels = figure.subplots(-(-len(dimensions) // 3), 3, squeeze=False).ravel()
        for panel, dimension in zip(panels, dimensions, strict=False):
            own = rates[rates["dimension"] == dimension]
            names = [name for name in order[dimension] if name in set(own["bin"])]
            styles = (("false_positive_rate", ORANGE, "o", -0.12), ("miss_rate", RED, "s", 0.12))
            for quantity, colour, marker, shift in styles:
                rows = own[own["quantity"] == quantity]
                at = np.array([names.index(name) for name in rows["bin"]]) + shift
                reach = np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]]).clip(0)
                style: dict[str, Any] = {"color": colour, "marker": marker, "ls": "", "ms": 4, "lw": 1.2}
                label = quantity.replace("_", " ")
                panel.errorbar(at, rows["value"], yerr=np.nan_to_num(reach), label=label, **style)
            _ticks(panel, names)
            panel.set(title=dimension, ylim=(-0.03 * highest, 1.05 * highest or 1))
        for panel in panels[len(dimensions) :]:
            panel.set_axis_off()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.suptitle(f"{head} head: error rates; bars: 95 % over seeds and blocks of the test set")
        return save(figure, rates, path)


def _ticks(panel: Axes, names: list[str]) -> None:
    step = max(1, -(-len(names) // 8))
    at = np.arange(0, len(names), step)
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.set_xticks(at, [names[place] for place in at], rotation=30, ha="right")


def gallery(
    table: pd.DataFrame,
    pairs: Sequence[NDArray[np.float32]],
    outlines: Sequence[NDArray[Any]],
    cams: Sequence[NDArray[np.float32]],
    path: Path,
) -> Path:
    """The mistakes, false positives left and false negatives right: both frames and attribution.

    Args:
        table: n rows of `tapray.insight.mistakes.mistakes`.
        pairs: n of (2, H, W), normalised; outlines: n of (2, H, W), masks whose edges are drawn, 0 is ground.
        cams: n of (H, W), at most 1.
    """
    kinds = ("false positive", "false negative")
    rows = max(1, *(int((table["mistake"] == kind).sum()) for kind in kinds))
    with mpl.rc_context({**LOOK, "figure.constrained_layout.use": True}):
        figure = Figure(figsize=(9, 0.5 + 1.65 * rows))
        for kind, part in zip(kinds, figure.subfigures(1, 2, squeeze=False)[0], strict=True):
            own = np.flatnonzero(table["mistake"] == kind).tolist()
            part.suptitle(f"{kind}s, the most confident first" if len(own) else f"no {kind}s")
            axes = part.subplots(rows, 3, squeeze=False)
            for panel in axes.ravel():
                panel.set_axis_off()
            for line, number in zip(axes, own, strict=False):
                _mistake(line, table.iloc[number], pairs[number], outlines[number], cams[number])
        return save_picture(figure, path)


def _mistake(
    panels: Any,
    row: pd.Series,
    pair: NDArray[np.float32],
    outlines: NDArray[Any],
    cam: NDArray[np.float32],
) -> None:
    for number, panel in enumerate(panels):
        frame = min(number, 1)
        panel.imshow(pair[frame], cmap="gray", vmin=0, vmax=1)
        marked = outlines[frame][outlines[frame] > 0]
        for value in np.unique(marked) if number < 2 else ():
            panel.contour(outlines[frame] == value, levels=[0.5], colors=SKY, linewidths=0.7)
        if number == 2:
            panel.imshow(cam, cmap="magma", vmin=0, vmax=1, alpha=0.55)
    where = f"{row['movie']}  t {row['t']}  y {row['y']:.0f}  x {row['x']:.0f}"
    panels[0].set_title(f"p {row['probability']:.3f}  {where}", fontsize=7, loc="left", color=BLACK)
