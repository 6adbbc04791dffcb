"""Reads the configuration: plain data or YAML in, a checked `JobConfig` or one line about its faults out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tapray.collection import resolve_movies
from tapray.config import JobConfig
from tapray.entries import Collection, MovieEntry, Section
from tapray.errors import UserError
from tapray.locations import is_remote, was_remote, without_scheme

S = TypeVar("S", bound=Section)
# Settings that are local paths, relative to the study file.
LOCAL_PATHS = (("pretrain", "weights"), ("study", "imagenet"), ("cache", "folder"))


def one_line(error: ValidationError) -> str:
    """All faults of a configuration as one line, each with its key."""
    parts = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        text = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"]
        parts.append(f"{key}: {text}" if key else text)
    return "; ".join(parts)


def parse_config(data: Any, where: object = "") -> JobConfig:
    """Checks a configuration given as plain data.

    Raises:
        UserError: one line that names every faulty key.
    """
    return checked(JobConfig, data, where)


def checked(kind: type[S], data: Any, where: object) -> S:
    """Plain data as that part of a configuration; a UserError names every faulty key."""
    if not isinstance(data, dict):
        raise UserError("is not a mapping of sections", where=where)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UserError(one_line(error), where=where) from None


def load_config(path: Path, out: Path | None = None) -> JobConfig:
    """Reads a study from YAML; paths are relative to the file that names them.

    The movies of a collection file are listed in the configuration that is returned.

    Args:
        out: the run folder; None: the study's own `out`, or runs/<name>, in the working directory.

    Raises:
        UserError: a file is missing, is not YAML, or holds an unknown or faulty key; or it has variants.
    """
    found = load_variants(path, out)
    if "" not in found:
        todo = "use tapray run or tapray report, or a study of one"
        raise UserError(f"is a study of {len(found)} variants", where=path, todo=todo)
    return found[""]


def load_variants(path: Path, out: Path | None = None) -> dict[str, JobConfig]:
    """As `load_config`, of a study that may list `variants`: by name, what differs from the rest of the file.

    Each variant is a job with a run folder of its own name in that of the study. A study without any is its
    own only variant, named "".

    Raises:
        UserError: as `load_config` does.
    """
    found = {}
    for name, data in merged_variants(path).items():
        config = parse_config(data, where=f"{path} variant {name}" if name else path)
        folder = run_folder(config, out)
        config = resolved(config, path.resolve().parent).model_copy(update={"out": folder})
        found[name] = _variant(config, name) if name else config
    return found


def merged_variants(path: Path) -> dict[str, dict[str, Any]]:
    """The plain data of each variant of a study file, by name.

    Raises:
        UserError: the file is missing, is not YAML, or holds something else.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError("is not a mapping of sections", where=path)
    variants = data.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(own, dict | None) for own in variants.values()):
        raise UserError("variants: is not a mapping of names to what differs", where=path)
    return {str(name): _merged(data, own or {}) for name, own in (variants or {"": {}}).items()}


def run_folder(config: JobConfig, out: Path | None) -> Path:
    """The run folder: the one asked for, the study's own, or runs/<name>, in the working directory."""
    named = out or (config.out if "out" in config.model_fields_set else Path("runs") / config.name)
    folder = without_scheme(named)
    if was_remote(folder):
        todo = "name a folder, and the address as 'mirror'"
        raise UserError("is an address, not a folder", where=f"out: {folder}", todo=todo)
    return folder


def _variant(config: JobConfig, name: str) -> JobConfig:
    """The job of a variant."""
    own = parse_config({"simulate": {}, "name": f"{config.name}-{name}"}, where=f"variant {name}")
    copy = None if config.mirror is None else config.mirror / name
    return config.model_copy(update={"name": own.name, "out": config.out / name, "mirror": copy})


def _merged(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the keys of `changes` replaced, in mappings within it too."""
    deeper = {
        key: _merged(data[key], own)
        for key, own in changes.items()
        if isinstance(own, dict) and isinstance(data.get(key), dict)
    }
    return {**data, **changes, **deeper}


def resolved(config: JobConfig, base: Path) -> JobConfig:
    """The configuration with every movie listed, none left to a collection file or a wildcard.

    Args:
        base: the folder that relative paths start from.

    Raises:
        UserError: the collection file is at fault, or as `resolve_movies` does.
    """
    for section, key in LOCAL_PATHS:
        own = getattr(config, section)
        if (path := getattr(own, key)) is not None:
            own = own.model_copy(update={key: (base / path).resolve()})
            config = config.model_copy(update={section: own})
    if config.mirror is not None and not is_remote(config.mirror):
        config = config.model_copy(update={"mirror": (base / config.mirror).resolve()})
    movies = resolve_movies(config.movies, base)
    if config.collection is not None:
        if is_remote(config.collection):
            raise UserError("a collection file must be on a local disk", where=config.collection)
        file = base / config.collection
        movies = _collected(read_yaml(file), file)
    return config.model_copy(update={"movies": movies, "collection": None})


def _collected(data: Any, file: Path) -> tuple[MovieEntry, ...]:
    return resolve_movies(checked(Collection, data, where=file).movies, file.resolve().parent)


def load_movies(path: Path) -> tuple[MovieEntry, ...]:
    """The movies that a study or a collection file lists.

    Raises:
        UserError: as `load_config` does, or the study simulates its movies.
    """
    data = read_yaml(path)
    if isinstance(data, dict) and set(data) == {"movies"}:
        return _collected(data, path)
    movies = next(iter(load_variants(path).values())).movies
    if not movies:
        raise UserError("lists no movies, it simulates them", where=path, todo="run it, then inspect a movie")
    return movies


def read_yaml(path: Path) -> Any:
    """The plain data of a file; UserError if it cannot be read or is not YAML."""
    try:
        return yaml.load(path.read_text(), Loader=_Loader)  # a safe loader
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise UserError(f"cannot be read ({reason})", where=path) from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = str(error).replace('in "<unicode string>", ', "")  # the rest comes from odd tags and dates
        raise UserError(f"is not valid YAML ({reason})", where=path) from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{name}' is there twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)
