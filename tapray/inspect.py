"""Says what is understood of movies and their annotations, in a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from tapray.collection import resolve_movies
from tapray.configfile import load_movies
from tapray.console import Reporter
from tapray.crops.normalise import frame_ranges
from tapray.data import ctc
from tapray.data.annotations import Places, open_instance_masks, read_places
from tapray.data.axes import Pick
from tapray.data.movies import Movie, open_movie
from tapray.data.places import LABELS
from tapray.entries import MovieEntry, Reading
from tapray.errors import UserError
from tapray.report.overview import save_overview

SAMPLE = 64  # frames whose intensities are looked at
_YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Seen:
    """A movie with what its annotations say and the percentiles of some of its frames."""

    movie: Movie
    places: Places | None  # None: there is no annotation
    cells: bool  # instance masks say where cells are
    frames: NDArray[np.int64]  # (n,) the frames looked at
    ranges: NDArray[np.float32]  # (n, 2) their percentiles


def inspect(path: Path, reading: Reading, pictures: Path, reporter: Reporter) -> list[Path]:
    """Prints what is understood of every movie; returns the pictures written, one a movie.

    Args:
        path: a movie, of a sequence of the Cell Tracking Challenge with the annotations beside it; or a
            study or collection file, with the annotations it lists.
        reading: what the user says of a single movie's file.
        pictures: folder of the pictures.

    Raises:
        UserError: a movie or an annotation is not readable, or `pictures` cannot be written to.
    """
    written = []
    for entry in _entries(path, reading):
        seen = look(entry)
        reporter.table(_table(seen, entry.path))
        target = pictures / f"{seen.movie.name}_inspect.png"
        try:
            pictures.mkdir(parents=True, exist_ok=True)
            save_overview(seen.movie, seen.places, seen.frames, seen.ranges, target)
        except OSError as error:
            raise UserError(f"cannot be written ({error.strerror})", where=target) from None
        reporter.say(f"picture: {target}")
        written.append(target)
    return written


def look(entry: MovieEntry) -> Seen:
    """Opens a movie and reads its annotations and the intensities of up to SAMPLE frames."""
    movie = open_movie(entry.path, entry.name, entry)
    masks = open_instance_masks(entry, movie)
    annotated = len(entry.annotations) > (masks is not None)
    places = read_places(entry, movie) if annotated else None
    frames = np.unique(np.linspace(0, movie.shape[0] - 1, min(movie.shape[0], SAMPLE)).astype(np.int64))
    ranges = np.concatenate([frame_ranges(movie.grey(int(t))[None], "linear") for t in frames])
    return Seen(movie, places, masks is not None, frames, ranges)


def _entries(path: Path, reading: Reading) -> Sequence[MovieEntry]:
    if path.suffix.lower() in _YAML:
        if reading != Reading():
            todo = "write axes, channel and plane into it, movie by movie"
            raise UserError("options of one file do not go with a list", where=path, todo=todo)
        return load_movies(path)
    listed = MovieEntry(path=path, **reading.model_dump())
    found = resolve_movies([listed], Path.cwd())
    return [entry.model_copy(update={"annotations": ctc.beside(entry.path)}) for entry in found]


def _table(seen: Seen, path: Path) -> Table:
    table = Table(title=escape(str(path)))
    table.add_column("what")
    table.add_column("value")
    for name, value in {**_pixels(seen.movie), **_intensities(seen), **_annotated(seen)}.items():
        table.add_row(name, escape(str(value)))
    return table


def _pixels(movie: Movie) -> dict[str, object]:
    header, layout = movie.header, movie.layout
    frames, height, width = movie.shape
    picked = [
        f"{'plane' if axis == 'Z' else 'channel'} {_numbers(pick)} of {n}"
        for axis, pick, n in zip(layout.axes, layout.picks, header.shape, strict=True)
        if pick is not None and n > 1
    ]
    size, interval = movie.pixel_size, movie.frame_interval
    return {
        "format": f"{movie.format}, {len(header.files)} file(s)" if header.files else movie.format,
        "axes": f"{layout.axes} {' x '.join(map(str, header.shape))}",
        **({"taken": ", ".join(picked)} if picked else {}),
        "frames": frames,
        "height x width": f"{height} x {width} px",
        "type": movie.dtype,
        "bytes of pixels": f"{frames * height * width * movie.channels * movie.dtype.itemsize:,}",
        "pixel size": f"{size:g} um" if size else "unknown (set pixel_size)",
        "frame interval": f"{interval:g} s" if interval else "unknown (set frame_interval)",
    }


def _numbers(pick: Pick) -> str:
    return " and ".join(map(str, pick)) if isinstance(pick, tuple) else str(pick)


def _intensities(seen: Seen) -> dict[str, object]:
    low, high = seen.ranges.T
    dtype = seen.movie.dtype
    flat = int((high - low <= 1).sum()) if dtype.kind == "u" else 0
    full = int((high >= np.iinfo(dtype).max).sum()) if dtype.kind == "u" else 0
    return {
        "1 percentile": f"{low.min():g} to {low.max():g}",
        "99.8 percentile": f"{high.min():g} to {high.max():g}",
        **({"frames without contrast": f"{flat} of {len(low)} looked at"} if flat else {}),
        **({"saturated frames": f"{full} of {len(low)} looked at"} if full else {}),
    }


def _annotated(seen: Seen) -> dict[str, object]:
    cells = {"cells": "instance masks (for background rejection)"} if seen.cells else {}
    if seen.places is None:
        return {**cells, "events": "unknown: no annotation is given or found beside it"}
    table = seen.places.table
    events = table[table["kind"] == "event"]
    counts = {word: int((events["label"] == LABELS[word]).sum()) for word in ("division", "death")}
    rest = "no event" if seen.places.exhaustive else "unknown ground, neither event nor negative"
    return {
        **cells,
        "events": ", ".join(f"{n} {word}(s)" for word, n in counts.items()),
        "known negatives": int((table["kind"] == "negative").sum()),
        "unknown places": int((table["kind"] == "unknown").sum()),
        "elsewhere": rest,
    }
