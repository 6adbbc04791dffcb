"""Says what is understood of a movie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.table import Table

from tapray.console import Reporter
from tapray.crops.normalise import frame_ranges
from tapray.data.movies import open_movie


def describe(path: Path, reporter: Reporter) -> None:
    """Prints frames, size, type, bytes and the intensity range of a movie.

    Raises:
        UserError: the path is not a readable movie.
    """
    movie = open_movie(path)
    frames, height, width = movie.shape
    picked = np.unique(np.linspace(0, frames - 1, min(frames, 8)).astype(int))
    ranges = np.concatenate([frame_ranges(movie.read(t, t + 1), "linear") for t in picked])
    table = Table(title=str(path))
    table.add_column("what")
    table.add_column("value")
    rows = {
        "frames": frames,
        "height x width": f"{height} x {width} px",
        "type": movie.dtype,
        "files": len(movie.files),
        "bytes of pixels": f"{frames * height * width * movie.dtype.itemsize:,}",
        "1 percentile": f"{ranges[:, 0].min():g} to {ranges[:, 0].max():g}",
        "99.8 percentile": f"{ranges[:, 1].min():g} to {ranges[:, 1].max():g}",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    reporter.table(table)
