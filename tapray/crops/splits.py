"""Splits: which part of which movie is train, validation and test.

A split is added here: one function from the configuration and the movies' shapes to
regions. A crop belongs to a split when both its frames and all its pixels lie in a region
of that split, so that splits share nothing in space and time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tapray.config import JobConfig, Role, SplitKind
from tapray.crops.draw import Region
from tapray.errors import UserError


@dataclass(frozen=True)
class MovieFacts:
    """What a split needs to know of a movie."""

    shape: tuple[int, int, int]  # frames, height, width
    role: Role | None = None
    field: str = ""  # field of view: movies of one field show the same place
    longest_event: int = 0  # frames from the last before it to the first after it


Movies = Mapping[str, MovieFacts]


@dataclass(frozen=True)
class SplitRegion:
    """A region and the split it belongs to; role None: crops are shuffled among the splits."""

    role: Role | None
    region: Region


def split_regions(config: JobConfig, movies: Movies) -> list[SplitRegion]:
    """The regions of every movie.

    Raises:
        UserError: roles are missing or disagree, there are fewer movies or fields than the split
            needs, or a part is too small to hold a crop pair, labelled or for pretraining
            (validation and test parts are cut for both, too).
    """
    regions = _SPLITS[config.split.kind](config, movies)
    size, delta = max(config.crops.size, config.pretrain.size), max(config.crops.delta, config.span)
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


def _by_movie(config: JobConfig, movies: Movies) -> list[SplitRegion]:
    """Whole movies by their roles, or in folds."""
    if config.split.folds is None:
        return _whole(movies, _given_roles(movies))
    fields = [facts.field or name for name, facts in movies.items()]
    if len(set(fields)) < len(fields):
        what = "some movies share a field of view, and would be in several folds"
        raise UserError(what, where="split.kind movie", todo="use split.kind: field")
    return _whole(movies, _in_folds(list(movies), config))


def _by_field(config: JobConfig, movies: Movies) -> list[SplitRegion]:
    """All movies of a field of view together: in folds, by their roles, or dealt by the fractions."""
    fields = list(dict.fromkeys(facts.field or name for name, facts in movies.items()))
    if config.split.folds is not None:
        roles = _in_folds(fields, config)
    elif any(facts.role for facts in movies.values()):
        return _whole(movies, _given_roles(movies))
    else:
        roles = _dealt(fields, config)
    return _whole(movies, {name: roles[facts.field or name] for name, facts in movies.items()})


def _whole(movies: Movies, roles: Mapping[str, Role]) -> list[SplitRegion]:
    return [SplitRegion(roles[name], whole(name, facts.shape)) for name, facts in movies.items()]


def _given_roles(movies: Movies) -> dict[str, Role]:
    """The roles of the movies; those of one field show the same place and must share one."""
    roles: dict[str, Role] = {}
    of_field: dict[str, str] = {}
    for name, facts in movies.items():
        if facts.role is None:
            todo = "give role: train, val or test, or another split.kind"
            raise UserError("has no role", where=name, todo=todo)
        roles[name] = facts.role
        other = of_field.setdefault(facts.field or name, name)
        if roles[other] is not facts.role:
            what = f"shares its field of view with {other}, but is {facts.role} and not {roles[other]}"
            raise UserError(what, where=name, todo="give the movies of a field one role")
    return roles


def _in_folds(units: Sequence[str], config: JobConfig) -> dict[str, Role]:
    """Units shuffled from the seed and dealt into folds: one tests, the next validates, the rest trains."""
    folds = len(units) if config.split.folds == "each" else _folds(config)
    if not 3 <= folds <= len(units):
        what = f"{max(folds, 3)} folds need as many movies or fields of view, there are {len(units)}"
        raise UserError(what, where="split.folds", todo="ask for fewer folds or add movies")
    order = np.random.default_rng([config.seed, 5]).permutation(len(units))
    return {units[unit]: _role_of(int(place) % folds, folds, config) for place, unit in enumerate(order)}


def _role_of(part: int, folds: int, config: JobConfig) -> Role:
    if config.split.fold >= folds:
        todo = f"folds count from 0 to {folds - 1}"
        raise UserError(f"there is no fold {config.split.fold}", where="split.fold", todo=todo)
    return {0: Role.TEST, 1: Role.VAL}.get((part - config.split.fold) % folds, Role.TRAIN)


def _dealt(fields: Sequence[str], config: JobConfig) -> dict[str, Role]:
    """Fields shuffled from the seed and dealt by the fractions, at least one to each split."""
    if len(fields) < len(Role):
        what = f"{len(fields)} field(s) of view cannot be divided into train, val and test"
        raise UserError(what, where="split.kind field", todo="add movies of other fields, or split otherwise")
    order = np.random.default_rng([config.seed, 5]).permutation(len(fields))
    wanted = np.array(config.split.fractions) * len(fields)
    counts = np.maximum(np.floor(wanted).astype(int), 1)
    left = len(fields) - int(counts.sum())
    if left < 0:  # small shares were rounded up to one field
        counts[counts.argmax()] += left
    counts[np.argsort(counts - wanted, kind="stable")[: max(left, 0)]] += 1
    roles = np.repeat([Role.TRAIN, Role.VAL, Role.TEST], counts)
    return {fields[unit]: Role(role) for unit, role in zip(order, roles, strict=True)}


def _folds(config: JobConfig) -> int:
    folds = config.split.folds
    if not isinstance(folds, int):
        todo = "give the number of folds"
        raise UserError("'each' is for movies and fields of view", where="split.folds", todo=todo)
    return folds


def _blocks(length: int, config: JobConfig, gap: int) -> list[tuple[Role, int, int]]:
    """Cuts [0, length) into parts of the splits in their order, `gap` left out between two splits."""
    if config.split.folds is None:
        share = dict(zip((Role.TRAIN, Role.VAL, Role.TEST), config.split.fractions, strict=True))
        parts = [(role, share[role]) for role in config.split.order if share[role] > 0]
    else:
        folds = _folds(config)
        every = [(_role_of(part, folds, config), 1 / folds) for part in range(folds)]
        runs = [(role, list(run)) for role, run in groupby(every, key=lambda part: part[0])]
        parts = [(role, sum(width for _, width in run)) for role, run in runs]
    cuts = np.round(np.cumsum([0.0, *(width for _, width in parts)]) * length).astype(int)
    last = len(parts) - 1
    return [
        (role, int(cuts[i]) + (gap - gap // 2 if i else 0), int(cuts[i + 1]) - (gap // 2 if i < last else 0))
        for i, (role, _) in enumerate(parts)
    ]


def _of_one_role(movies: Movies) -> tuple[list[SplitRegion], Movies]:
    """The movies that belong to one split as a whole, and those that are to be cut."""
    given = [
        SplitRegion(facts.role, whole(name, facts.shape)) for name, facts in movies.items() if facts.role
    ]
    return given, {name: facts for name, facts in movies.items() if facts.role is None}


def _by_time_block(config: JobConfig, movies: Movies) -> list[SplitRegion]:
    """Consecutive frames; the gap covers the pair, an event and its surroundings."""
    out, others = _of_one_role(movies)
    for name, facts in others.items():
        frames, height, width = facts.shape
        gap = config.split.gap
        if gap is None:
            gap = config.crops.delta + config.crops.margin + facts.longest_event
        for role, start, stop in _blocks(frames, config, gap):
            out.append(SplitRegion(role, Region(name, start, stop, 0, 0, height, width)))
    return out


def _by_tile(config: JobConfig, movies: Movies) -> list[SplitRegion]:
    """Strips side by side; no crop crosses a border."""
    out, others = _of_one_role(movies)
    for name, facts in others.items():
        frames, height, width = facts.shape
        for role, start, stop in _blocks(height if config.split.axis == "y" else width, config, 0):
            box = (start, 0, stop, width) if config.split.axis == "y" else (0, start, height, stop)
            out.append(SplitRegion(role, Region(name, 0, frames, *box)))
    return out


def _random_crop(config: JobConfig, movies: Movies) -> list[SplitRegion]:
    """Published, leaky: crops of the whole movie, shuffled among the splits."""
    if config.split.folds is not None:
        raise UserError("crops shuffled at random have no folds", where="split.folds", todo="leave it out")
    return [SplitRegion(None, whole(name, facts.shape)) for name, facts in movies.items()]


_SPLITS: dict[SplitKind, Callable[[JobConfig, Movies], list[SplitRegion]]] = {
    SplitKind.MOVIE: _by_movie,
    SplitKind.FIELD: _by_field,
    SplitKind.TIME_BLOCK: _by_time_block,
    SplitKind.TILE: _by_tile,
    SplitKind.RANDOM_CROP: _random_crop,
}


def pretrain_regions(config: JobConfig, regions: list[SplitRegion]) -> list[Region]:
    """What pretraining may see; with the published split that is everything."""
    return [item.region for item in regions if item.role is None or item.role in config.pretrain.include]
