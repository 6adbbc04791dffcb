"""Pictures of where an event head errs, and the gallery of its most confident mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from tapray.insight.mistakes import FALSE_NEGATIVE, FALSE_POSITIVE, WRONG_KIND
from tapray.report.figures import BLACK, BLUE, GREY, LOOK, ORANGE, RED, SKY, save, save_picture

# Of both panels over time: the errors, what is right of the same answer, and what the truth is.
OVER_TIME = (
    (("false_positive", ORANGE, "o"), ("true_positive", BLUE, "s"), ("positive", GREY, "")),
    (("false_negative", RED, "o"), ("true_negative", SKY, "s"), ("negative", GREY, "")),
)
RATES = {"false_positive_rate": (ORANGE, "o"), "miss_rate": (RED, "s")}
ABREAST = 3  # panels of rates in a row


def over_time(errors: pd.DataFrame, head: str, drawn: str, path: Path) -> list[Path]:
    """Shares of all false positives, true positives and positives by frame, and of the negatives beside them,
    with 95 % intervals of the errors (arXiv 2411.03924, figure 4).

    errors: as `tapray.insight.errors.error_table`, of one cell; drawn: over what the intervals are. Returns
    PNG (`path`), SVG and CSV.
    """
    own = errors[errors["dimension"] == "frame"]
    names = list(dict.fromkeys(own["bin"]))
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9, 3.6))
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
        _name(figure, f"{head} head: errors over time", f"bands: 95 % over {drawn}")
        return save(figure, own, path)


def by_surroundings(errors: pd.DataFrame, head: str, drawn: str, path: Path) -> list[Path]:
    """Rates of false positives and, below, of misses by every other dimension; arguments as of `over_time`.

    Returns PNG (`path`), SVG and CSV.
    """
    rates = errors[errors["quantity"].isin(RATES)]
    rates = rates[(rates["dimension"] != "frame") & (rates["crops"] > 0)]
    order = {str(name): list(dict.fromkeys(own["bin"])) for name, own in errors.groupby("dimension")}
    by_quantity = {name: rates[rates["quantity"] == name] for name in RATES}
    rows = {name: -(-own["dimension"].nunique() // ABREAST) for name, own in by_quantity.items()}
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9, 0.6 + 2.4 * sum(rows.values())))
        axes, first = figure.subplots(sum(rows.values()), ABREAST, squeeze=False), 0
        for name, own in by_quantity.items():
            _rates(axes[first : first + rows[name]], own, order, name)
            first += rows[name]
        _name(figure, f"{head} head: error rates", f"bars: 95 % over {drawn}")
        return save(figure, rates, path)


def _rates(axes: NDArray[Any], rates: pd.DataFrame, order: Mapping[str, list[str]], name: str) -> None:
    """One rate by every dimension for which there are crops, on one scale."""
    highest = float(np.nanmax(rates[["value", "high"]].to_numpy(), initial=0))
    dimensions, (colour, marker) = list(dict.fromkeys(rates["dimension"])), RATES[name]
    for panel, dimension in zip(axes.ravel(), dimensions, strict=False):
        own = rates[rates["dimension"] == dimension].set_index("bin")
        names = [each for each in order[dimension] if each in own.index]
        own = own.loc[names]
        reach = np.stack([own["value"] - own["low"], own["high"] - own["value"]]).clip(0)
        style: dict[str, Any] = {"color": colour, "marker": marker, "ls": "", "ms": 4, "lw": 1.2}
        panel.errorbar(np.arange(len(names)), own["value"], yerr=np.nan_to_num(reach), **style)
        _ticks(panel, names)
        panel.set(title=dimension, ylim=(-0.03 * highest, 1.05 * highest or 1))
    for panel in axes.ravel()[len(dimensions) :]:
        panel.set_axis_off()
    for row in axes:
        row[0].set_ylabel(name.replace("_", " "))


def _name(figure: Figure, title: str, intervals: str) -> None:
    figure.suptitle(title)
    note = f"{intervals}, drawn anew; too narrow with fewer than ten seeds or where seeds share encoders"
    figure.supxlabel(note, fontsize=8, color=GREY)


def _ticks(panel: Axes, names: list[str]) -> None:
    step = max(1, -(-len(names) // 8))
    at = np.arange(0, len(names), step)
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.set_xticks(at, [names[place] for place in at], rotation=30, ha="right")


@dataclass(frozen=True)
class Close:
    """A mistake from close by; places in pixels of its frames.

    frames: (2, H, W), normalised; outlines: (2, H, W) masks whose edges are drawn, 0 is ground; ways: (H, W)
    attribution, at most 1, by its name; top, left, size: the crop that was judged; events: y, x, radius of
    those that the frames show.
    """

    frames: NDArray[np.float32]
    outlines: NDArray[Any]
    ways: Mapping[str, NDArray[np.float32]]
    top: int
    left: int
    size: int
    events: pd.DataFrame


def gallery(table: pd.DataFrame, views: Sequence[Close], title: str, path: Path) -> Path:
    """The mistakes, false positives left and false negatives right, and below them what was called another
    kind of event, where there is any: both frames, and the first under each attribution.

    Args:
        table: n rows of `tapray.insight.mistakes.mistakes`; views: n, with the same ways of attribution.
    """
    places = {
        kind: np.flatnonzero(table["mistake"] == kind).tolist()
        for kind in (FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_KIND)
    }
    bands: list[tuple[str, ...]] = [(FALSE_POSITIVE, FALSE_NEGATIVE)]
    if places[WRONG_KIND]:
        bands.append((WRONG_KIND,))
    rows = [max(1, *(len(places[kind]) for kind in band)) for band in bands]
    columns = 2 + max((len(view.ways) for view in views), default=1)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(11, 0.9 + 1.5 * sum(rows)))
        parts = figure.subfigures(len(bands), 2, squeeze=False, height_ratios=rows)
        for band, n, line in zip(bands, rows, parts, strict=True):
            for kind, part in zip(band, line, strict=False):
                part.suptitle(f"{kind}s, the most confident first" if places[kind] else f"no {kind}s")
                axes = part.subplots(n, columns, squeeze=False)
                for panel in axes.ravel():
                    panel.set_axis_off()
                for number, (panels, place) in enumerate(zip(axes, places[kind], strict=False)):
                    _mistake(panels, table.iloc[place], views[place], heads=number == 0)
        figure.suptitle(title)
        return save_picture(figure, path)


def _mistake(panels: NDArray[Any], row: pd.Series, view: Close, *, heads: bool) -> None:
    for number, (name, panel) in enumerate(zip(("t", "t + delta", *view.ways), panels, strict=True)):
        frame = int(number == 1)  # attribution is shown on the first, as on whole frames
        panel.imshow(view.frames[frame], cmap="gray", vmin=0, vmax=1)
        panel.autoscale(False)
        masks = view.outlines[frame]
        for value in np.unique(masks[masks > 0]) if number < 2 else ():
            panel.contour(masks == value, levels=[0.5], colors=SKY, linewidths=0.7)
        if name in view.ways:
            panel.imshow(view.ways[name], cmap="magma", vmin=0, vmax=1, alpha=0.55)
        corner = (view.left - 0.5, view.top - 0.5)
        panel.add_patch(Rectangle(corner, view.size, view.size, fill=False, ec=ORANGE, lw=0.8))
        for y, x, radius in view.events[["y", "x", "radius"]].to_numpy(float):
            panel.add_patch(Circle((x, y), radius, fill=False, ec=SKY, lw=0.8, ls="--"))
        where = f"{row['movie']}  t {row['t']}  y {row['y']:.0f}  x {row['x']:.0f}"
        kinds = f"  {row['class']} called {row['called']}" if row["mistake"] == WRONG_KIND else ""
        below = f"p {row['probability']:.3f}{kinds}  {where}" if number == 0 else ""
        panel.set_title(f"{name}\n{below}" if heads else below, fontsize=7, loc="left", color=BLACK)
