"""Which axes of a file are time, Y and X, and which channel and plane of the others are taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tapray.data.formats.base import Header
from tapray.entries import Reading
from tapray.errors import UserError

Pick = int | tuple[int, ...] | None


@dataclass(frozen=True)
class Layout:
    """How a movie (T, Y, X), or of several channels (T, C, Y, X), lies in the array of its file.

    axes: a letter for each axis of the file, as understood; picks: for each axis the index that is taken,
    or several, None for T, Y and X; order: where T, C, Y and X are among the axes that are left.
    """

    axes: str
    picks: tuple[Pick, ...]
    order: tuple[int, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Those that are taken, where there are several."""
        return next((pick for pick in self.picks if isinstance(pick, tuple)), ())

    def index(self, start: int, stop: int) -> tuple[int | slice, ...]:
        """Of frames [start, stop) in the array of the file; of several channels, those from first to last."""
        return tuple(
            slice(start, stop) if axis == "T" else _extent(pick)
            for axis, pick in zip(self.axes, self.picks, strict=True)
        )

    def arrange(self, block: NDArray[Any]) -> NDArray[Any]:
        """What lies at `index` as (n, Y, X) or (n, C, Y, X)."""
        if block.ndim != len(self.order):
            return block
        frames = block.transpose(self.order)
        if not self.channels:
            return frames
        return frames[:, [channel - min(self.channels) for channel in self.channels]]


def _extent(pick: Pick) -> int | slice:
    if isinstance(pick, tuple):
        return slice(min(pick), max(pick) + 1)
    return slice(None) if pick is None else pick


def lay_out(header: Header, reading: Reading, where: Path) -> Layout:
    """The layout of a file, by its own word and what the user says of it.

    Where no axis is called time and one alone is longer than 1 beside Y and X, that one is: ImageJ and
    tifffile write time as T, Z, C or Q. Raises UserError where axes are unclear, or a channel or plane
    has to be named or does not exist.
    """
    axes = _named(header, reading.axes, where) if reading.axes else _guessed(header, reading, where)
    wanted = {"C": reading.channel, "S": reading.channel, "Z": reading.plane}
    words = {"C": "channel", "S": "channel", "Z": "plane"}
    picks: list[Pick] = []
    for axis, n in zip(axes, header.shape, strict=True):
        if axis in "TYX":
            picks.append(None)
        elif n == 1:
            picks.append(0)
        elif axis not in words:
            todo = "say what they are with axes, for example TCYX"
            raise UserError(f"axes {axes} of shape {header.shape} are unclear", where=where, todo=todo)
        else:
            picks.append(_picked(wanted[axis], n, words[axis], where))
    for word, letters, value in (("channel", "CS", reading.channel), ("plane", "Z", reading.plane)):
        several = any(axis in letters and n > 1 for axis, n in zip(axes, header.shape, strict=True))
        if value and not several:
            raise UserError(f"has no {word} {value}, it has one", where=where, todo=f"leave {word} out")
    left = ["C" if pick is not None else axis for axis, pick in zip(axes, picks, strict=True) if _kept(pick)]
    order = tuple(left.index(axis) for axis in "TCYX" if axis in left)
    return Layout(axes, tuple(picks), order)


def _kept(pick: Pick) -> bool:
    """Whether the axis is still there after picking."""
    return pick is None or isinstance(pick, tuple)


def _picked(value: Pick, n: int, word: str, where: Path) -> Pick:
    given = value if isinstance(value, tuple) else (value,)
    for number in given:
        if number is None or number >= n:
            what = f"has {n} {word}s" if number is None else f"has no {word} {number}"
            raise UserError(what, where=where, todo=f"give {word}: a number from 0 to {n - 1}")
    return value


def _named(header: Header, axes: str, where: Path) -> str:
    """The axes the user names."""
    if len(axes) != len(header.shape):
        what = f"axes {axes} name {len(axes)} dimensions, the file has {len(header.shape)}: {header.shape}"
        raise UserError(what, where=where)
    if any(axes.count(axis) != 1 for axis in "TYX") or len(set(axes)) < len(axes):
        todo = "name T, Y and X, each axis once"
        raise UserError(f"axes {axes} are not those of a movie", where=where, todo=todo)
    return axes


def _guessed(header: Header, reading: Reading, where: Path) -> str:
    """The file's own axes, with one of them called time."""
    axes = list(header.axes.upper())
    if axes.count("Y") != 1 or axes.count("X") != 1:
        raise UserError(f"axes {header.axes} are not those of images", where=where, todo="give axes")
    asked = {"C": reading.channel, "Z": reading.plane}
    long = [i for i, n in enumerate(header.shape) if n > 1 and axes[i] not in "YXS"]
    free = [i for i in long if asked.get(axes[i]) is None]
    unknown = [i for i in free if axes[i] not in "CZ"]
    if not any(axes[i] == "T" for i in long):
        if not free:
            raise UserError("holds one frame only, a movie has at least two", where=where)
        if len(free) > 1 and len(unknown) != 1:
            what = f"axes {header.axes} of shape {header.shape} name no time"
            raise UserError(what, where=where, todo="say which is which with axes, for example TZYX")
        axes = ["Q" if axis == "T" else axis for axis in axes]  # of length 1
        axes[unknown[0] if len(unknown) == 1 else free[0]] = "T"
    return "".join(axes)
