"""What is known about a movie: the annotations of an entry, merged into one table of places.

Absence of a label is not a negative: a place is an event, a known negative or unknown ground, and only an
exhaustive annotation makes the rest negative. A further kind of annotation is one more entry of `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import Annotation, AnnotationKind, MovieEntry
from tapray.data.masks import draw_discs, open_masks, read_event_masks, read_masks
from tapray.data.movies import Movie
from tapray.data.places import PLACE_COLUMNS, Places, merge, near, no_places
from tapray.data.tables import read_division_table, read_event_table, read_track_table
from tapray.data.tracks import read_tracks

__all__ = ["PLACE_COLUMNS", "READERS", "MaskReader", "Places", "open_event_masks", "open_instance_masks"]
__all__ += ["read_places", "render_event_masks"]

MaskReader = Callable[[int, int], NDArray[np.uint8]]  # frames [start, stop) -> (stop - start, Y, X)


class Reader(NamedTuple):
    """How one kind of annotation is read: (annotation, name of the movie, movie) -> places."""

    read: Callable[[Annotation, str, Movie], pd.DataFrame]
    exhaustive: bool  # where the annotation does not say


READERS: dict[AnnotationKind, Reader] = {
    AnnotationKind.EVENT_MASKS: Reader(read_event_masks, exhaustive=True),
    AnnotationKind.CTC_TRACKS: Reader(read_tracks, exhaustive=True),
    AnnotationKind.EVENT_TABLE: Reader(read_event_table, exhaustive=False),
    AnnotationKind.DIVISION_TABLE: Reader(read_division_table, exhaustive=False),
    AnnotationKind.TRACK_TABLE: Reader(read_track_table, exhaustive=False),
    AnnotationKind.INSTANCE_MASKS: Reader(lambda *_: no_places(), exhaustive=False),
}


def read_places(entry: MovieEntry, movie: Movie) -> Places:
    """All annotations of an entry as one table; see `places.merge` for places that two of them name.

    Beside event masks, tracks give negatives only: the masks say where the events are. What lies near an
    event or negative of an annotation that overrules is dropped from the others. The whole is exhaustive if
    an annotation is whose events count. Raises UserError, naming the file, for every fault.
    """
    has_masks = any(a.kind is AnnotationKind.EVENT_MASKS for a in entry.annotations)
    tables, exhaustive, rules = [no_places()], False, [no_places()]
    for annotation in entry.annotations:
        reader = READERS[annotation.kind]
        table = reader.read(annotation, entry.name, movie).assign(
            frame_slack=annotation.frame_tolerance, slack=annotation.pixel_tolerance
        )
        if has_masks and annotation.kind is AnnotationKind.CTC_TRACKS:
            tables.append(table[table["kind"] == "negative"])
            continue
        exhaustive |= reader.exhaustive if annotation.exhaustive is None else annotation.exhaustive
        if annotation.overrules:
            rules.append(table[table["kind"] != "unknown"])
        else:
            tables.append(table)
    corrections, others = pd.concat(rules), pd.concat(tables)
    dropped = near(others, corrections)
    left = [table[~near(table, corrections)] for table in tables]
    overruled = others[dropped & (others["kind"] == "event")]
    return Places(merge([*rules, *left]), exhaustive, corrections, overruled)


def render_event_masks(places: Places, shape: tuple[int, int, int]) -> MaskReader:
    """Masks drawn from the table: per event a disc of its radius in frames t to t_end, holding its label."""

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        return draw_discs(places.table, start, stop, shape[1:])

    return read


def open_instance_masks(entry: MovieEntry, movie: Movie) -> Movie | None:
    """The instance masks of an entry, (T, Y, X) with 0 for ground; None where it has none."""
    own = [a for a in entry.annotations if a.kind is AnnotationKind.INSTANCE_MASKS]
    return open_masks(own[0], movie) if own else None


def open_event_masks(entry: MovieEntry, movie: Movie, places: Places) -> MaskReader:
    """The event masks of an entry as they were annotated, or drawn from its places where none were.

    Of several event mask annotations the highest value counts. Events that another annotation overrules are
    taken out of them, and its own are drawn in. Raises UserError for damaged files.
    """
    annotated = [a for a in entry.annotations if a.kind is AnnotationKind.EVENT_MASKS]
    if not annotated:
        return render_event_masks(places, movie.shape)
    masks = [open_masks(annotation, movie) for annotation in annotated]

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        highest: NDArray[np.uint8] = np.maximum.reduce([read_masks(mask, start, stop) for mask in masks])
        if places.corrections.empty:
            return highest
        gone, kept, own = (
            draw_discs(table, start, stop, movie.shape[1:])
            for table in (places.overruled, places.table, places.corrections)
        )
        return np.where(own > 0, own, np.where((gone > 0) & (kept == 0), 0, highest))

    return read
