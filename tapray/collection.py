"""Movies as they are listed, into movies as they are: wildcards and placeholders resolved, names given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from upath import UPath

from tapray.entries import Annotation, MovieEntry
from tapray.errors import UserError, damage
from tapray.locations import is_remote, location

_WILD = re.compile(r"[*?\[]")
_FOREIGN = re.compile(r"[^A-Za-z0-9_.+-]+")


def resolve_movies(entries: Iterable[MovieEntry], base: Path) -> tuple[MovieEntry, ...]:
    """One entry a movie, with a name, a field of view and absolute paths; resolved entries stay as they are.

    Args:
        base: the folder that relative paths start from.

    Raises:
        UserError: a wildcard finds nothing, a placeholder is unknown, or two movies have one name.
    """
    movies: list[MovieEntry] = []
    for entry in entries:
        movies += [entry] if entry.resolved else [_named(entry, p, base) for p in _found(entry.path, base)]
    movies = _channels_share_a_field(movies)
    first: dict[str, Path] = {}
    for movie in movies:
        if movie.name in first:
            what = f"movie names must differ, {first[movie.name]} is '{movie.name}' too"
            raise UserError(
                what, where=movie.path, todo="give each a name, which may hold {stem} and {parent}"
            )
        first[movie.name] = movie.path
    return tuple(movies)


def _channels_share_a_field(movies: Sequence[MovieEntry]) -> list[MovieEntry]:
    """Movies of one file show the same cells: without a field of their own they have that of the first."""
    fields: dict[str, str] = {}
    shared = []
    for movie in movies:
        field = fields.setdefault(str(movie.path), movie.field)
        own = movie.field != movie.name
        shared.append(movie if own else movie.model_copy(update={"field": field}))
    return shared


def _found(path: Path, base: Path) -> list[Path]:
    """What a path stands for, in natural order."""
    wild = bool(_WILD.search(str(path)))
    if is_remote(path):
        address = UPath(path)
        within = str(address.path).lstrip("/")
        anchor = UPath(str(address)[: len(str(address)) - len(within)])
        with damage(path, "address"):
            return _ordered(anchor.glob(within), path) if wild else [path]  # type: ignore[arg-type]
    whole = base / path
    root = Path(path.anchor) if path.is_absolute() else base  # whose own name may hold brackets
    with damage(whole, "path"):
        if whole.exists() or not wild:
            return [whole]
        return _ordered(root.glob(str(path.relative_to(path.anchor))), whole)


def _ordered(paths: Iterable[Path], pattern: Path) -> list[Path]:
    found = sorted((p for p in paths if not p.name.startswith(".")), key=_natural)
    if not found:
        raise UserError("no file or folder matches", where=pattern)
    return found


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts numbers within names by value: field_2 before field_10."""
    words = re.split(r"(\d+)", str(path))
    return [(1, int(word), "") if word.isdigit() else (0, 0, word) for word in words]


def _named(entry: MovieEntry, path: Path, base: Path) -> MovieEntry:
    known = {"stem": path.stem, "parent": path.parent.name}
    name = _FOREIGN.sub("_", _fill(entry.name, known, path) or path.stem)
    known["name"] = name
    notes = tuple(_annotation(note, known, path, base) for note in entry.annotations)
    field = _fill(entry.field, known, path) or name
    named = entry.model_copy(update={"path": path, "name": name, "field": field, "annotations": notes})
    named.settle()
    return named


def _annotation(note: Annotation, known: dict[str, str], movie: Path, base: Path) -> Annotation:
    text = _fill(str(note.path), known, movie)
    return note.model_copy(update={"path": location(text) if is_remote(text) else base / text})


def _fill(text: str, known: dict[str, str], movie: Path) -> str:
    """The text with {stem}, {parent} and {name} replaced."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            todo = f"use one of {', '.join('{' + word + '}' for word in known)}"
            raise UserError(f"unknown placeholder {match[0]} in {text!r}", where=movie, todo=todo)
        return known[match[1]]

    return re.sub(r"\{(\w*)\}", value, text)
