"""A picture of a movie: some of its frames with what is annotated, and how it runs over time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from tapray.crops.normalise import frame_ranges, normalise
from tapray.data.movies import Movie
from tapray.data.places import Places
from tapray.report.tables import beside

PANELS = 4
EXAMPLES = 8  # events that are shown, before and after
_STYLES = {
    "event 1": ("#e66100", "division"),
    "event 2": ("#5d3a9b", "death"),
    "negative 0": ("#1a85ff", "known negative"),
    "unknown 0": ("#9a9a9a", "unknown"),
}


def save_overview(
    movie: Movie, places: Places | None, frames: NDArray[np.int64], ranges: NDArray[np.float32], path: Path
) -> None:
    """Writes a PNG: PANELS frames, those with most events where there are any, two curves, EXAMPLES events.

    Args:
        frames, ranges: frames (n,) whose percentiles (n, 2) are drawn.
    """
    table = places.table if places else None
    events = _examples(table)
    figure = Figure(figsize=(12, 7.2 if len(events) else 5.4), layout="constrained")
    figure.suptitle(f"{movie.name}: {movie.shape[0]} frames of {movie.shape[1]} x {movie.shape[2]} px")
    heights = [1.9, 1, *([1.1] if len(events) else [])]
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    chosen = _chosen(movie, table)
    row = grid[0].subgridspec(1, len(chosen))
    for column, t in enumerate(chosen):
        _panel(figure.add_subplot(row[column]), movie, table, t)
    curves = grid[1].subgridspec(1, 2)
    left, right = (figure.add_subplot(curves[column]) for column in range(2))
    left.plot(frames, ranges, label=["1 percentile", "99.8 percentile"])
    left.set(xlabel="frame", ylabel="intensity")
    left.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    _counts(right, movie, table)
    if len(events):
        pairs = grid[2].subgridspec(2, EXAMPLES)
        for column, (_, event) in enumerate(events.iterrows()):
            for line, t in enumerate((int(event["t"]), int(event["t_end"]))):
                _cut(figure.add_subplot(pairs[line, column]), movie, event, t)
    with beside(path) as part:
        figure.savefig(part, dpi=110)


def _chosen(movie: Movie, table: pd.DataFrame | None) -> list[int]:
    """Up to PANELS frames, one from each quarter of the movie: the last before most events, or the middle."""
    edges = np.linspace(0, movie.shape[0], PANELS + 1).astype(int)
    chosen = [min((start + stop) // 2, movie.shape[0] - 1) for start, stop in pairwise(edges)]
    if table is None:
        return chosen
    counts = np.bincount(table.loc[table["kind"] == "event", "t"], minlength=movie.shape[0])
    for panel, (start, stop) in enumerate(pairwise(edges)):
        if stop > start and counts[start:stop].any():
            chosen[panel] = int(start + counts[start:stop].argmax())
    return sorted(set(chosen))


def _examples(table: pd.DataFrame | None) -> pd.DataFrame:
    """Up to EXAMPLES events, all over the movie."""
    if table is None:
        return pd.DataFrame()
    events = table[table["kind"] == "event"].sort_values("t")
    return events.iloc[
        np.unique(np.linspace(0, max(len(events) - 1, 0), EXAMPLES).astype(int))[: len(events)]
    ]


def _cut(axes: Axes, movie: Movie, event: pd.Series, t: int) -> None:
    """The place of an event in one frame, with the disc that is taken as the event."""
    frame = movie.grey(t)[None]
    y, x, reach = int(event["y"]), int(event["x"]), int(2 * event["radius"]) + 8
    top, left = max(y - reach, 0), max(x - reach, 0)
    flat = normalise(frame, frame_ranges(frame, "linear"), "linear")[0]
    axes.imshow(flat[top : y + reach, left : x + reach], cmap="gray", vmin=0, vmax=1)
    colour = _STYLES[f"event {int(event['label'])}"][0]
    circle = (event["x"] - left, event["y"] - top)
    axes.add_patch(Circle(circle, event["radius"], fill=False, color=colour, linewidth=1))
    axes.set_title(f"t {t}", fontsize=8)
    axes.set_axis_off()


def _panel(axes: Axes, movie: Movie, table: pd.DataFrame | None, t: int) -> None:
    frame = movie.grey(t)[None]
    axes.imshow(normalise(frame, frame_ranges(frame, "linear"), "linear")[0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(f"frame {t}", fontsize=9)
    axes.set_axis_off()
    axes.autoscale(False)  # a circle over the border must not shrink the frame
    if table is None:
        return
    here = table[(table["t"] <= t) & (table["t_end"] >= t)]
    for key, (colour, _) in _STYLES.items():
        kind, label = key.split()
        own = here[(here["kind"] == kind) & (here["label"] == int(label))]
        if kind != "negative":
            for y, x, radius in own[["y", "x", "radius"]].to_numpy(float):
                axes.add_patch(Circle((x, y), radius, fill=False, color=colour, linewidth=1.2))
        else:
            axes.scatter(own["x"], own["y"], s=16, marker="+", color=colour, linewidths=0.8)


def _counts(axes: Axes, movie: Movie, table: pd.DataFrame | None) -> None:
    """Places in every frame, by kind."""
    axes.set(xlabel="frame", ylabel="places", xlim=(0, movie.shape[0] - 1))
    if table is None or table.empty:
        axes.text(0.5, 0.5, "no annotation", ha="center", transform=axes.transAxes)
        return
    for key, (colour, word) in _STYLES.items():
        kind, label = key.split()
        own = table[(table["kind"] == kind) & (table["label"] == int(label))]
        counts: NDArray[Any] = np.bincount(own["t"], minlength=movie.shape[0])
        if len(own):
            axes.step(np.arange(len(counts)), counts, where="mid", color=colour, label=f"{word} ({len(own)})")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.legend(frameon=False, fontsize=8, ncols=len(_STYLES), loc="lower right", bbox_to_anchor=(1, 1))
