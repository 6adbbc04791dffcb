"""What a movie format says of a file and does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Index = tuple[int | slice, ...]  # one for each axis of the file, slices without steps

_MICROMETRES = {"micrometer": 1.0, "micron": 1.0, "um": 1.0, "\u00b5m": 1.0, "\u03bcm": 1.0}
_MICROMETRES |= {"nanometer": 1e-3, "nm": 1e-3, "millimeter": 1e3, "mm": 1e3, "meter": 1e6, "m": 1e6}
_MICROMETRES |= {"microns": 1.0, "angstrom": 1e-4}
_SECONDS = {"second": 1.0, "s": 1.0, "sec": 1.0, "millisecond": 1e-3, "ms": 1e-3, "msec": 1e-3}
_SECONDS |= {"minute": 60.0, "min": 60.0, "hour": 3600.0, "h": 3600.0, "hr": 3600.0, "day": 86400.0}


@dataclass(frozen=True)
class Header:
    """What a file says of its pixels, without their being read.

    axes: a letter for each dimension of `shape`: T, C, Z, Y, X, S (samples of a colour), Q (unknown).
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    files: tuple[Path, ...] = ()  # whose bytes are the pixels, in order; none: too many to name
    pixel_size: float | None = None  # micrometres
    frame_interval: float | None = None  # seconds
    offsets: tuple[int, ...] = ()  # in a TIFF: where the header of each page begins, or the row of all pixels
    size: int = 0  # of that TIFF in bytes: the offsets are those of no other


class Format(NamedTuple):
    """How one kind of movie is told, opened (headers only) and read.

    `read` gives what the array of the header's shape would at an index, in native byte order. All three
    take a local path or an address of fsspec and raise UserError, naming the file, for what is wrong with it.
    """

    detect: Callable[[Path], bool]
    header: Callable[[Path], Header]
    read: Callable[[Path, Header, Index], NDArray[Any]]


def micrometres(value: object, unit: object) -> float | None:
    """A length in micrometres; None where it is not above 0 or the unit is unknown."""
    return _converted(value, unit, _MICROMETRES)


def seconds(value: object, unit: object) -> float | None:
    """A duration in seconds; None where it is not above 0 or the unit is unknown."""
    return _converted(value, unit, _SECONDS)


def _converted(value: object, unit: object, units: dict[str, float]) -> float | None:
    try:
        number = float(str(value)) * units[str(unit).lower()]
    except (ValueError, KeyError):
        return None
    return number if 0 < number < float("inf") else None
