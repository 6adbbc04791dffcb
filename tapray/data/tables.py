"""CSV tables of events, divisions and track points, as places.

Positions are pixels from the centre of the first pixel, times are frames from 0.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from tapray.config import Annotation
from tapray.data.movies import Movie
from tapray.data.places import DEFAULT_RADIUS, LABELS, make_table, steady
from tapray.errors import UserError


def read_csv(path: Path, required: tuple[str, ...]) -> pd.DataFrame:
    """The cells of a CSV file as stripped text, indexed by line number.

    Raises UserError, with file and line, where it is missing, unreadable, lacks a required column, or has
    a line of more or fewer cells than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
            lines = {line: row for line, row in rows if any(row)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot be read as a table ({error})", where=path) from error
    if not lines:
        raise UserError("is empty", where=path)
    names = lines.pop(next(iter(lines)))
    missing = [name for name in required if name not in names]
    if missing or len(set(names)) < len(names):
        fault = f"lacks the columns {', '.join(missing)}" if missing else "names a column twice"
        raise UserError(fault, where=path, todo=f"it has {', '.join(names)}")
    for line, row in lines.items():
        if len(row) != len(names):
            raise UserError(f"has {len(row)} cells, not {len(names)}", where=f"{path}, line {line}")
    return pd.DataFrame.from_dict(lines, orient="index", columns=names, dtype="str")


def refuse(faulty: pd.Series, path: Path, what: str) -> None:
    """UserError naming the first faulty line, if there is one."""
    if faulty.any():
        raise UserError(what, where=f"{path}, line {faulty.index[faulty][0]}")


def refuse_twice(t: pd.Series, y: pd.Series, x: pd.Series, path: Path) -> None:
    """UserError where a place has two rows: an event would count twice, or be of two kinds."""
    refuse(pd.DataFrame({"t": t, "y": y, "x": x}).duplicated(), path, "this place has a row already")


def numbers(cells: pd.Series, path: Path) -> pd.Series:
    """Finite floats; empty cells are faults."""
    values = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    refuse(values.isna() | (values.abs() == np.inf), path, f"{cells.name} is not a number")
    return values


def frames(cells: pd.Series, path: Path, movie: Movie) -> pd.Series:
    """Frames of the movie."""
    values = numbers(cells, path)
    refuse(values != values.round(), path, f"{cells.name} is not a whole number")
    last = movie.shape[0] - 1
    refuse(~values.between(0, last), path, f"{cells.name} is not a frame of the movie (0 to {last})")
    return values.astype(np.int64)


def positions(cells: pd.Series, path: Path, size: int) -> pd.Series:
    """Coordinates within an image of `size` pixels."""
    values = numbers(cells, path)
    refuse(~values.between(-0.5, size - 0.5), path, f"{cells.name} is outside the frame (0 to {size - 1})")
    return values


def read_event_table(annotation: Annotation, name: str, movie: Movie) -> pd.DataFrame:
    """Places of a CSV with columns t, y, x, class, quality and, where wanted, movie, t_end, radius.

    class is none, division or death. A row of a quality that the annotation does not count is an unknown
    place, of class none a known negative, else an event. t_end defaults to the next frame, radius to
    16 px; an empty cell is the default. Rows of other movies are passed over, whatever they
    hold; none of this one is a fault unless the annotation is said to be exhaustive.
    """
    path = annotation.path
    table = read_csv(path, ("t", "y", "x", "class", "quality"))
    if "movie" in table:
        others = sorted(set(table["movie"]))
        table = table[table["movie"] == name]
        if table.empty and others and not annotation.exhaustive:
            raise UserError(f"has no row of movie {name}", where=path, todo=f"it names {', '.join(others)}")
    label = table["class"].map(LABELS)
    refuse(label.isna(), path, f"class is not one of {', '.join(LABELS)}")
    t = frames(table["t"], path, movie)
    y = positions(table["y"], path, movie.shape[1])
    x = positions(table["x"], path, movie.shape[2])
    refuse_twice(t, y, x, path)
    t_end = (t + 1).clip(upper=movie.shape[0] - 1)
    if "t_end" in table:
        given = table["t_end"] != ""
        t_end = frames(table["t_end"][given], path, movie).reindex(table.index).fillna(t_end)
        refuse(t_end < t, path, "t_end is before t")
    radius = pd.Series(DEFAULT_RADIUS, table.index)
    if "radius" in table:
        given = table["radius"] != ""
        radius = numbers(table["radius"][given], path).reindex(table.index).fillna(radius)
        longest = max(movie.shape[1:])
        refuse((radius <= 0) | (radius > longest), path, f"radius is not above 0 and at most {longest} px")
    counts = table["quality"].isin(annotation.quality)
    kind = np.where(counts, np.where(label == 0, "negative", "event"), "unknown")
    t_end = t_end.where(kind != "negative", t)
    return make_table(kind, label.where(counts, 0), t, t_end, y, x, radius)


def read_division_table(annotation: Annotation, name: str, movie: Movie) -> pd.DataFrame:
    """Places of a CSV with columns t_parent_last, t_children_first, x_parent, y_parent, quality.

    A row is an event where the annotation counts its quality, else unknown; its radius is 16 px.
    """
    path = annotation.path
    table = read_csv(path, ("t_parent_last", "t_children_first", "x_parent", "y_parent", "quality"))
    t = frames(table["t_parent_last"], path, movie)
    t_end = frames(table["t_children_first"], path, movie)
    refuse(t_end <= t, path, "t_children_first is not after t_parent_last")
    y = positions(table["y_parent"], path, movie.shape[1])
    x = positions(table["x_parent"], path, movie.shape[2])
    refuse_twice(t, y, x, path)
    counts = table["quality"].isin(annotation.quality)
    kind = np.where(counts, "event", "unknown")
    return make_table(kind, np.where(counts, LABELS["division"], 0), t, t_end, y, x, DEFAULT_RADIUS)


def read_track_table(annotation: Annotation, name: str, movie: Movie) -> pd.DataFrame:
    """Known negatives of a CSV with columns id, t, y, x: its steady points (see `places.steady`)."""
    path = annotation.path
    table = read_csv(path, ("id", "t", "y", "x"))
    points = pd.DataFrame({"id": numbers(table["id"], path), "t": frames(table["t"], path, movie)})
    refuse(points.duplicated(), path, "this track has a point in this frame already")
    points["y"] = positions(table["y"], path, movie.shape[1])
    points["x"] = positions(table["x"], path, movie.shape[2])
    points = points[steady(points)]
    return make_table("negative", 0, points["t"], points["t"], points["y"], points["x"], DEFAULT_RADIUS)
