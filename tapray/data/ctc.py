"""Tracks in the layout of the Cell Tracking Challenge (Maška 2023, Ulman 2017).

A folder holds one label image a frame, man_track000.tif onwards, where a pixel's value is the number of
the track it belongs to, and man_track.txt with one line "L B E P" a track: label, first and last frame,
and the label of the track it came from by division, 0 for none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from tapray.entries import Annotation, AnnotationKind
from tapray.errors import UserError
from tapray.locations import is_remote

LINEAGE = "man_track.txt"
LINEAGE_COLUMNS = ["label", "begin", "end", "parent"]


def read_lineage(path: Path) -> pd.DataFrame:
    """The tracks of a man_track.txt, a row each: label, begin, end, parent (int64), by label.

    Raises UserError, with file and line, for a line that is not four whole numbers, a label below 1 or
    named twice, a track that ends before it begins, and a parent that is absent or not yet over.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=path) from error
    rows: dict[int, tuple[int, int, int, int]] = {}  # by line number
    for number, line in enumerate(lines, start=1):
        if line.strip():
            rows[number] = _four_numbers(line, f"{path}, line {number}")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=LINEAGE_COLUMNS).astype(np.int64)
    ends = table.drop_duplicates("label").set_index("label")["end"]
    ends_of_parent = table["parent"].map(ends)
    has_parent = table["parent"] != 0
    for fault, what in (
        (table["label"] < 1, "a label must be at least 1"),
        (table["label"].duplicated(), "this label has a line already"),
        ((table["begin"] < 0) | (table["end"] < table["begin"]), "a track must not end before it begins"),
        (has_parent & ends_of_parent.isna(), "the parent has no line"),
        (has_parent & (ends_of_parent >= table["begin"]), "the parent must end before its child begins"),
    ):
        if fault.any():
            raise UserError(what, where=f"{path}, line {table.index[fault][0]}")
    return table.sort_values("label", ignore_index=True)


def _four_numbers(line: str, where: str) -> tuple[int, int, int, int]:
    try:
        label, begin, end, parent = np.array([int(word) for word in line.split()], np.int64).tolist()
    except (ValueError, OverflowError) as error:
        raise UserError(f"not the four whole numbers L B E P: {line.strip()!r}", where=where) from error
    return label, begin, end, parent


def beside(sequence: Path) -> tuple[Annotation, ...]:
    """What a dataset of the challenge holds beside a sequence 01: tracks 01_GT/TRA, masks 01_ST/SEG."""
    if is_remote(sequence):
        return ()
    tracks, masks = (sequence.parent / (sequence.name + tail) for tail in ("_GT", "_ST"))
    found = []
    if (tracks / "TRA" / LINEAGE).is_file():
        found.append(Annotation(kind=AnnotationKind.CTC_TRACKS, path=tracks / "TRA"))
    if (masks / "SEG").is_dir():
        found.append(Annotation(kind=AnnotationKind.INSTANCE_MASKS, path=masks / "SEG"))
    return tuple(found)


def write_ctc(folder: Path, tracks: NDArray[np.integer], lineage: pd.DataFrame) -> None:
    """Write track labels (T, Y, X) and their lineage (columns as `read_lineage` gives) as a new folder.

    The folder appears whole or not at all. Raises UserError where it is there already and not empty,
    ValueError for labels that do not fit 16 bit.
    """
    if tracks.size and (tracks.min() < 0 or tracks.max() > np.iinfo(np.uint16).max):
        raise ValueError("track labels must fit unsigned 16 bit")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        digits = max(3, len(str(len(tracks) - 1)))
        for t, frame in enumerate(tracks):
            file = partial / f"man_track{t:0{digits}d}.tif"
            tifffile.imwrite(file, frame.astype(np.uint16), compression="zlib", photometric="minisblack")
        lineage[LINEAGE_COLUMNS].to_csv(partial / LINEAGE, sep=" ", header=False, index=False)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def centroids(frames: Iterable[NDArray[np.integer]]) -> pd.DataFrame:
    """Every track in every frame, a row each: id, t (int64), y, x (float pixels), area (float pixels).

    `frames` are label images (Y, X) in order from frame 0; rows come by frame, then id.
    """
    tables = []
    for t, frame in enumerate(frames):
        found = regionprops_table(  # type: ignore[no-untyped-call]
            np.asarray(frame), properties=("label", "centroid", "area")
        )
        ids, y, x, area = (found[key] for key in ("label", "centroid-0", "centroid-1", "area"))
        tables.append(pd.DataFrame({"id": ids, "t": t, "y": y, "x": x, "area": area}))
    kinds = {"id": np.int64, "t": np.int64, "y": np.float64, "x": np.float64, "area": np.float64}
    if not tables:
        return pd.DataFrame({name: np.empty(0, kind) for name, kind in kinds.items()})
    return pd.concat(tables, ignore_index=True).astype(kinds)
