"""Finds events in a movie, with calibrated probabilities."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.feature import peak_local_max

from tapray.atomic import atomic_write
from tapray.console import Reporter, Task
from tapray.crops.draw import Region
from tapray.crops.normalise import frame_ranges, normalise
from tapray.crops.splits import whole
from tapray.data.movies import Movie
from tapray.data.places import CLASS_NAMES
from tapray.detector import Detector
from tapray.errors import UserError
from tapray.model.dense import frame_features
from tapray.study.fit import in_batches


def predict(
    detector: Detector, movie: Movie, out: Path, reporter: Reporter, stride: int | None = None
) -> Path:
    """Writes <movie>_events.csv and <movie>_probability.tif into `out`; returns the table's path.

    The table is that of `find_events`. The probability movie is float32 of the movie's shape: frame t
    says how likely an event is between frames t and t + delta; the last delta frames are unknown (NaN).

    Args:
        stride: pixels between the places that are looked at; None: a quarter of a crop.

    Raises:
        UserError: the movie is too short or too small for the model's crops, or `out` cannot be written to.
    """
    crops, (frames, height, width) = detector.crops, movie.shape
    if movie.channels != (sees := detector.encoder.channels):
        what = f"has {movie.channels} channel(s), the model sees {sees}"
        raise UserError(what, where=movie.path, todo="name the channels with --channel")
    if frames <= crops.delta or min(height, width) < crops.size:
        raise UserError(
            f"{frames} frames of {height} x {width} px cannot hold a crop pair of {crops.size} px",
            where=movie.path,
        )
    events, probability = (out / f"{movie.name}_{name}" for name in ("events.csv", "probability.tif"))
    with _results_folder(out), reporter.task("frame pairs", frames - crops.delta, "pair") as progress:
        for path in (events, probability):
            if path.is_dir():
                raise UserError("is a folder", where=path, todo="choose another --out")
        probabilities, rows, columns = scan(detector, movie, whole(movie.name, movie.shape), stride, progress)
    table = find_events(detector, movie.name, probabilities, rows, columns)
    _write_probability(probability, 1 - probabilities[..., 0], rows, columns, movie.shape)
    atomic_write(events, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    reporter.say(f"{len(table)} events in {movie.name}: {events}")
    return events


@contextmanager
def _results_folder(out: Path) -> Iterator[None]:
    """A folder that can be written to; if it is new, it is gone again where the block fails."""
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written to ({error.strerror})", where=out) from None
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # others have written there meanwhile
                out.rmdir()
        raise


def scan(
    detector: Detector, movie: Movie, region: Region, stride: int | None, progress: Task
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Calibrated probabilities (pairs, gy, gx, K) of a region, and the rows (gy,) and columns (gx,) in it."""
    crops = detector.crops
    sides = region.bottom - region.top, region.right - region.left
    rows, columns = (_places(side, stride or crops.size // 4) for side in sides)
    pairs = region.stop - region.start - crops.delta
    probabilities = np.empty((pairs, len(rows), len(columns), crops.classes), np.float32)
    for t, values in _frame_pairs(detector, movie, region, rows, columns):
        probabilities[t - region.start] = values
        progress.advance()
    return probabilities, rows, columns


def _places(length: int, stride: int) -> NDArray[np.int64]:
    """Centres of crops along one axis, `stride` apart, from border to border."""
    return np.unique(np.append(np.arange(0, length, stride), length - 1))


def _frame_pairs(
    detector: Detector, movie: Movie, region: Region, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Calibrated probabilities (gy, gx, K) of each frame pair; each frame is embedded once.

    Frames are mirrored at the region's borders, so that events there are seen too.
    """
    crops, before = detector.crops, detector.crops.size // 2
    kept: dict[int, torch.Tensor] = {}
    for t in range(region.start, region.stop):
        frame = movie.read(t, t + 1)
        flat = normalise(frame, frame_ranges(frame, crops.intensity), crops.intensity)[0]
        flat = flat[..., region.top : region.bottom, region.left : region.right]
        sides = [(0, 0)] * (flat.ndim - 2) + [(before, crops.size - before)] * 2
        kept[t] = _embedded(detector, np.pad(flat, sides, mode="reflect"), rows, columns)
        if (first := t - crops.delta) in kept:
            both = torch.stack([kept.pop(first), kept[t]], dim=1)
            logits = in_batches(lambda x: detector.head(detector.head.front(x)), both).double().numpy()
            yield first, detector.calibration.apply(logits).reshape(len(rows), len(columns), -1)


def _embedded(
    detector: Detector, frame: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> torch.Tensor:
    """Features (n, C, h, w) float16 of the crops of a frame that begin in these rows and columns.

    Each crop is embedded by itself, or cut from the features of the frame, as those it was trained on.
    """
    net, size = detector.encoder, detector.crops.size
    if detector.crops.features == "crop":
        windows = _windows(frame, size, rows, columns)
        return in_batches(lambda x: net.features(x[:, None], detector.layer).squeeze(1).half(), windows)
    features = frame_features(net, torch.from_numpy(frame), detector.layer).half()
    stride = net.backbone.stride
    return torch.from_numpy(_windows(features.numpy(), size // stride, rows // stride, columns // stride))


def _windows(
    image: NDArray[Any], size: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[Any]:
    """(n, ..., size, size) squares of an image (..., H, W) that begin in these rows and columns."""
    windows = sliding_window_view(image, (size, size), axis=(-2, -1))[..., rows[:, None], columns, :, :]
    found = np.moveaxis(windows, (-4, -3), (0, 1))
    return np.ascontiguousarray(found.reshape(-1, *image.shape[:-2], size, size))


def find_events(
    detector: Detector,
    movie: str,
    probabilities: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> pd.DataFrame:
    """Peaks of the event probability in time and space, with the columns of an event table.

    The class is division or death where the model tells them apart, else event. One event is kept
    within half a crop and the margin of frames.
    """
    crops = detector.crops
    event = probabilities[..., 1:].sum(axis=-1)
    step = max(1, int(np.median(np.diff(rows)))) if len(rows) > 1 else 1
    reach = max(1, round(crops.size / 2 / step))
    t, i, j = strongest(probabilities, detector.threshold, crops.margin, reach).T
    names = np.array(CLASS_NAMES[crops.classes])
    kind = names[1 + probabilities[t, i, j, 1:].argmax(axis=1)] if len(t) else names[:0]
    return pd.DataFrame(
        {
            "movie": movie,
            "t": t,
            "y": rows[i],
            "x": columns[j],
            "class": kind,
            "quality": "predicted",
            "t_end": t + crops.delta,
            "radius": crops.size / 4,
            "probability": event[t, i, j],
        }
    )


def strongest(
    probabilities: NDArray[np.float32], threshold: float, frames: int, reach: int
) -> NDArray[np.int64]:
    """One place (t, i, j) for each event, in order of time.

    Places are ranked by their log-odds, averaged a little in space: near an event many probabilities
    round to 1, and its middle is wanted. The strongest is kept, those within `frames` and `reach` of
    it are dropped, and so on.

    Args:
        probabilities: (T, gy, gx, K), calibrated, class 0 none.
        threshold: least probability of an event.
    """
    event = probabilities[..., 1:].sum(axis=-1)
    tiny = np.finfo(np.float32).tiny
    odds = np.log(np.maximum(event, tiny)) - np.log(np.maximum(probabilities[..., 0], tiny))
    odds = gaussian_filter(odds, (0, 0.7, 0.7), mode="nearest")
    footprint = np.ones((2 * frames + 1, 2 * reach + 1, 2 * reach + 1), bool)
    peaks = peak_local_max(  # type: ignore[no-untyped-call]  # scikit-image has no types
        np.where(event >= threshold, odds, -np.inf), footprint=footprint, exclude_border=False
    )
    peaks = peaks[event[tuple(peaks.T)] >= threshold]
    peaks = peaks[np.argsort(-odds[tuple(peaks.T)], kind="stable")]
    kept: list[NDArray[np.int64]] = []
    for peak in peaks:  # as many as there are events
        if all((np.abs(peak - other) > (frames, reach, reach)).any() for other in kept):
            kept.append(peak)
    found = np.array(kept, dtype=np.int64).reshape(-1, 3)
    return found[np.lexsort(found.T[::-1])]


def _write_probability(
    path: Path,
    event: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    shape: tuple[int, int, int],
) -> None:
    """Event probabilities (pairs, gy, gx) as a TIFF stack (T, H, W), interpolated between the places."""
    y = np.interp(np.arange(shape[1]), rows, np.arange(len(rows)))
    x = np.interp(np.arange(shape[2]), columns, np.arange(len(columns)))
    grid = np.meshgrid(y, x, indexing="ij")
    unknown = np.full((shape[0] - len(event), *shape[1:]), np.nan, np.float32)
    frames = (map_coordinates(values, grid, order=1, mode="nearest") for values in event)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        tifffile.imwrite(
            beside,
            chain((frame.astype(np.float32) for frame in frames), unknown),
            bigtiff=4 * math.prod(shape) > 2**31,
            shape=shape,
            dtype=np.float32,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": "TYX"},
        )
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
