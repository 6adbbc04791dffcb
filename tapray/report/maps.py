"""Pictures of dense features."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tapray.report.figures import BLUE, GREY, LOOK, RED, save, save_picture

ABOUT = 8  # frames before and after an event that are told apart
COLOURS = {"none": GREY, "division": BLUE, "event": BLUE, "death": RED}


def colours_figure(frame: NDArray[np.float32], colours: NDArray[np.float32], title: str, path: Path) -> Path:
    """A frame (H, W) beside its features as colours (h, w, 3)."""
    height, width = frame.shape
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9, 9 * height / width / 2 + 0.5))
        left, right = figure.subplots(1, 2)
        left.imshow(frame, cmap="gray", vmin=0, vmax=1)
        right.imshow(colours)
        left.set_title("frame")
        right.set_title("first three principal components of its dense features")
        for panel in (left, right):
            panel.set_axis_off()
        figure.suptitle(title)
        return save_picture(figure, path)


def crop_map_figure(places: pd.DataFrame, path: Path) -> list[Path]:
    """UMAP of crops by class and by frames to the event there; returns PNG (`path`), SVG and CSV.

    places: a, b (of the map), kind, frames (since the event, NaN where none is near).
    """
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9, 4))
        left, right = figure.subplots(1, 2)
        for kind, own in places.groupby("kind", sort=False):
            size = 6 if kind == "none" else 14
            left.scatter(
                own["a"], own["b"], s=size, color=COLOURS[str(kind)], label=f"{kind} ({len(own)})", lw=0
            )
        left.legend(title="class")
        about = places["frames"].abs() <= ABOUT
        far, near = places[~about], places[about]
        right.scatter(far["a"], far["b"], s=6, color="#cccccc", lw=0)
        shown = right.scatter(
            near["a"],
            near["b"],
            s=14,
            c=near["frames"],
            cmap="coolwarm",
            vmin=-ABOUT,
            vmax=ABOUT,
            lw=0.3,
            edgecolors=GREY,
        )
        figure.colorbar(shown, ax=right, label="frames since the event (before it below 0)")
        for panel in (left, right):
            panel.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        return save(figure, places, path)
