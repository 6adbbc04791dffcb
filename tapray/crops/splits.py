"""Splits: which part of which movie is train, validation and test.

A split is added here: one function from the configuration and the movies' shapes to
regions. A crop belongs to a split when both its frames and all its pixels lie in a region
of that split, so that splits share nothing in space and time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tapray.config import JobConfig, Role, SplitKind
from tapray.crops.draw import Region
from tapray.errors import UserError

Shapes = Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class SplitRegion:
    """A region and the split it belongs to; role None: crops are shuffled among the splits."""

    role: Role | None
    region: Region


def split_regions(config: JobConfig, shapes: Shapes, roles: Mapping[str, Role | None]) -> list[SplitRegion]:
    """The regions of every movie.

    Args:
        shapes: (T, H, W) of each movie.
        roles: the role of each movie, needed when splitting by movie.

    Raises:
        UserError: a movie lacks a role, or a part is too small to hold a crop pair, labelled or
            for pretraining (validation and test parts are cut for both, too).
    """
    regions = _SPLITS[config.split.kind](config, shapes, roles)
    size, delta = max(config.crops.size, config.pretrain.size), config.crops.delta
    for item in regions:
        r = item.region
        if r.stop - r.start <= delta or min(r.bottom - r.top, r.right - r.left) < size:
            raise UserError(
                f"the {item.role or 'only'} part ({max(r.stop - r.start, 0)} frames of {r.bottom - r.top} x "
                f"{r.right - r.left} px) cannot hold a crop pair of {size} px over {delta} frame(s)",
                where=r.movie,
                todo="use smaller crops, other split fractions or a longer movie",
            )
    return regions


def whole(movie: str, shape: tuple[int, int, int]) -> Region:
    """All frames and pixels of a movie of that shape (T, H, W)."""
    return Region(movie, 0, shape[0], 0, 0, shape[1], shape[2])


def _by_movie(config: JobConfig, shapes: Shapes, roles: Mapping[str, Role | None]) -> list[SplitRegion]:
    missing = [movie for movie in shapes if roles.get(movie) is None]
    if missing:
        raise UserError(
            "has no role", where=missing[0], todo="give role: train, val or test, or another split.kind"
        )
    return [SplitRegion(roles[movie], whole(movie, shape)) for movie, shape in shapes.items()]


def _blocks(length: int, config: JobConfig, gap: int) -> list[tuple[Role, int, int]]:
    """Cuts [0, length) into the three splits in their order, `gap` left out between them."""
    share = dict(zip((Role.TRAIN, Role.VAL, Role.TEST), config.split.fractions, strict=True))
    edges = np.concatenate([[0], np.cumsum([share[role] for role in config.split.order])])
    cuts = np.round(edges * length).astype(int)
    last = len(config.split.order) - 1
    return [
        (role, int(cuts[i]) + (gap - gap // 2 if i else 0), int(cuts[i + 1]) - (gap // 2 if i < last else 0))
        for i, role in enumerate(config.split.order)
    ]


def _by_time_block(config: JobConfig, shapes: Shapes, roles: Mapping[str, Role | None]) -> list[SplitRegion]:
    """Consecutive frames; the gap covers the pair and the surroundings of an event."""
    gap = config.split.gap if config.split.gap is not None else config.crops.delta + config.crops.margin
    return [
        SplitRegion(role, Region(movie, start, stop, 0, 0, shape[1], shape[2]))
        for movie, shape in shapes.items()
        for role, start, stop in _blocks(shape[0], config, gap)
    ]


def _by_tile(config: JobConfig, shapes: Shapes, roles: Mapping[str, Role | None]) -> list[SplitRegion]:
    """Strips side by side; no crop crosses a border."""
    out = []
    for movie, (frames, height, width) in shapes.items():
        for role, start, stop in _blocks(height if config.split.axis == "y" else width, config, 0):
            box = (start, 0, stop, width) if config.split.axis == "y" else (0, start, height, stop)
            out.append(SplitRegion(role, Region(movie, 0, frames, *box)))
    return out


def _random_crop(config: JobConfig, shapes: Shapes, roles: Mapping[str, Role | None]) -> list[SplitRegion]:
    """Published, leaky: crops of the whole movie, shuffled among the splits."""
    return [SplitRegion(None, whole(movie, shape)) for movie, shape in shapes.items()]


_SPLITS: dict[SplitKind, Callable[[JobConfig, Shapes, Mapping[str, Role | None]], list[SplitRegion]]] = {
    SplitKind.MOVIE: _by_movie,
    SplitKind.TIME_BLOCK: _by_time_block,
    SplitKind.TILE: _by_tile,
    SplitKind.RANDOM_CROP: _random_crop,
}


def pretrain_regions(config: JobConfig, regions: list[SplitRegion]) -> list[Region]:
    """What pretraining may see; with the published split that is everything."""
    return [item.region for item in regions if item.role is None or item.role in config.pretrain.include]
