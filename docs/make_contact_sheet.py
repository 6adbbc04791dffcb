"""Draw a contact sheet of a simulated movie: ``python docs/make_contact_sheet.py OUT.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import SubFigure

from tapray.config import SimulateConfig
from tapray.data.simulate import SimulatedMovie, simulate_movie

SIZE, BEFORE, AFTER = 48, 4, 4  # pixels, frames before and after an event's t


def main(out: Path) -> None:
    """Write the sheet: a whole frame beside two divisions and two deaths."""
    movie = simulate_movie(SimulateConfig(), 0)
    figure = plt.figure(figsize=(13, 4.6))
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 2))
    _field(figure.add_subfigure(grid[0]), movie)
    _strips(figure.add_subfigure(grid[1]), movie)
    figure.savefig(out, dpi=80)


def _field(figure: SubFigure, movie: SimulatedMovie) -> None:
    axes = figure.subplots()
    t = len(movie.frames) // 2
    axes.imshow(_stretched(movie.frames[t]), cmap="gray", vmin=0, vmax=1)
    counts = movie.events["class"].value_counts()
    title = f"simulated field, frame {t} of {len(movie.frames)}"
    axes.set_title(f"{title}\n{counts['division']} divisions, {counts['death']} deaths", fontsize=10)
    axes.axis("off")
    figure.subplots_adjust(left=0.03, right=0.99, bottom=0.02, top=0.88)


def _strips(figure: SubFigure, movie: SimulatedMovie) -> None:
    half, last = SIZE // 2, len(movie.frames) - 1 - AFTER
    table = movie.events
    inside = table.y.between(half, movie.frames.shape[1] - half)
    inside &= table.x.between(half, movie.frames.shape[2] - half)
    table = table[inside & table.t.between(BEFORE, last)]
    shown = table.groupby("class").head(2).sort_values("class", ascending=False, kind="stable")
    grid = figure.subplots(len(shown), BEFORE + AFTER + 1, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.94, wspace=0.05, hspace=0.3)
    for row, y, x, event, kind in zip(grid, shown.y, shown.x, shown.t, shown["class"], strict=True):
        window = np.s_[round(y) - half : round(y) + half, round(x) - half : round(x) + half]
        for axes, t in zip(row, range(event - BEFORE, event + AFTER + 1), strict=True):
            axes.imshow(_stretched(movie.frames[t])[window], cmap="gray", vmin=0, vmax=1)
            mark = {event: f"{kind}: t", event + 1: "t_end"}.get(t, f"{t - event:+d}")
            axes.set_title(mark, fontsize=9, color="firebrick" if t in (event, event + 1) else "black")
            axes.axis("off")


def _stretched(frame: np.ndarray) -> np.ndarray:
    low, high = np.percentile(frame, (1, 99.8))
    return np.asarray((frame - low) / (high - low))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
