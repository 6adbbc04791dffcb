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
from numpy.typing import NDArray

from tapray.crops.normalise import frame_ranges, normalise
from tapray.data.movies import Movie
from tapray.data.places import Places

PANELS = 4
_STYLES = {
    "event 1": ("#e66100", "division"),
    "event 2": ("#5d3a9b", "death"),
    "negative 0": ("#1a85ff", "known negative"),
    "unknown 0": ("#9a9a9a", "unknown"),
}


def save_overview(
    movie: Movie, places: Places | None, frames: NDArray[np.int64], ranges: NDArray[np.float32], path: Path
) -> None:
    """Writes a PNG: PANELS frames, those with most events where there are any, over two curves in time.

    Args:
        frames, ranges: frames (n,) whose percentiles (n, 2) are drawn.
    """
    table = places.table if places else None
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    grid = figure.add_gridspec(2, PANELS, height_ratios=(1.9, 1))
    for column, t in enumerate(_chosen(movie, table)):
        _panel(figure.add_subplot(grid[0, column]), movie, table, t)
    left = figure.add_subplot(grid[1, : PANELS // 2])
    right = figure.add_subplot(grid[1, PANELS // 2 :])
    left.plot(frames, ranges, label=["1 percentile", "99.8 percentile"])
    left.set(xlabel="frame", ylabel="intensity")
    left.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    _counts(right, movie, table)
    beside = path.with_name(f".{path.name}.part.png")
    try:
        figure.savefig(beside, dpi=110)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _chosen(movie: Movie, table: pd.DataFrame | None) -> list[int]:
    """PANELS frames, one from each quarter of the movie: its last before most events, or its middle."""
    edges = np.linspace(0, movie.shape[0], PANELS + 1).astype(int)
    chosen = [min((start + stop) // 2, movie.shape[0] - 1) for start, stop in pairwise(edges)]
    if table is None:
        return chosen
    counts = np.bincount(table.loc[table["kind"] == "event", "t"], minlength=movie.shape[0])
    for panel, (start, stop) in enumerate(pairwise(edges)):
        if stop > start and counts[start:stop].any():
            chosen[panel] = int(start + counts[start:stop].argmax())
    return chosen


def _panel(axes: Axes, movie: Movie, table: pd.DataFrame | None, t: int) -> None:
    frame = movie.read(t, t + 1)
    axes.imshow(normalise(frame, frame_ranges(frame, "linear"), "linear")[0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(f"frame {t}", fontsize=9)
    axes.set_axis_off()
    if table is None:
        return
    here = table[(table["t"] <= t) & (table["t_end"] >= t)]
    for key, (colour, _) in _STYLES.items():
        kind, label = key.split()
        own = here[(here["kind"] == kind) & (here["label"] == int(label))]
        if kind == "event":
            for y, x, radius in own[["y", "x", "radius"]].to_numpy(float):
                axes.add_patch(Circle((x, y), radius, fill=False, color=colour, linewidth=1.2))
        else:
            axes.scatter(own["x"], own["y"], s=5, color=colour, linewidths=0)


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
    axes.legend(frameon=False, fontsize=8, ncols=len(_STYLES), loc="lower right", bbox_to_anchor=(1, 1))
