"""Ray Data: dense features of every labelled crop, once for each frozen encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import ray.data
import torch

from tapray.arrays import write_rows
from tapray.atomic import atomic_write
from tapray.config import JobConfig
from tapray.console import Reporter
from tapray.crops.normalise import normalise
from tapray.crops.shards import ShardReader, write_table
from tapray.data.movies import Movie
from tapray.distributed.cluster import capacity
from tapray.runfolder import content_hash
from tapray.study.cache import FeatureCache
from tapray.study.features import Encoder, embedded, encoders
from tapray.study.store import frames_used

FRAMES = 4  # of a movie that are embedded at a time
RECIPE = 1  # of the code: another one where the same net gives other features, which the cache must not have


@dataclass(frozen=True)
class Sources:
    """What features are made from: labelled crops, the movies, the pretrained net."""

    config: JobConfig
    shards: Path
    movies: Mapping[str, Movie]
    model: Path


@dataclass(frozen=True)
class _Array:
    """An array of features: of every crop, or of the frames of a movie that crops lie in."""

    name: str
    key: str
    shape: tuple[int, ...]
    encoder: str
    movie: str | None = None


def write_features(
    sources: Sources, folder: Path, cache: FeatureCache, reporter: Reporter, *, anew: bool = False
) -> dict[str, int]:
    """Fills a feature folder (see study.store) with what the cache has or now gets; arrays.json comes last.

    Args:
        anew: nothing is taken from the cache.

    Returns:
        How many arrays were found in the cache, how many were computed, and the bytes of all.

    Raises:
        UserError: the pretrained model or the shards are damaged.
    """
    config, index = sources.config, ShardReader(sources.shards).index()
    made = encoders(config, sources.model)
    arrays = [*_arrays(sources, index, made)]
    shapes = {array.key: array.shape for array in arrays}
    if anew:
        cache.drop(shapes)
    with cache.held(shapes):
        with cache.filling(shapes) as blanks:
            todo = [array for array in arrays if array.key in blanks]
            _compute(sources, index, todo, blanks, reporter)
        cache.used(shapes)
        total = sum(cache.path(array.key).stat().st_size for array in arrays)
    cut = {
        name: (one.shape(config.crops.size, config.channels)[-1], one.net.backbone.stride)
        for name, one in made.items()
        if one.net
    }
    # File by file: the folder may be that of a finished stage, whose note must stay.
    told = {array.name: os.path.relpath(cache.path(array.key), folder) for array in arrays}
    write_table(pa.Table.from_pandas(index), folder / "index.parquet")
    atomic_write(folder / "arrays.json", json.dumps({"arrays": told, "cut": cut}, indent=1))
    return {"cached": len(arrays) - len(blanks), "computed": len(blanks), "bytes": total}


def _arrays(sources: Sources, index: pd.DataFrame, made: Mapping[str, Encoder]) -> Iterator[_Array]:
    config, movies = sources.config, json.loads((sources.shards / "manifest.json").read_text())["movies"]
    # Of pixels and not of labels: other labels of the same crops, or frames, share their features.
    pixels = {name: [facts[key] for key in ("sha256", "axes", "picks")] for name, facts in movies.items()}
    cut = crops_digest(index, config.crops.size)
    for name, encoder in made.items():
        made_by = [config.crops.intensity, encoder.digest]
        shape = encoder.shape(config.crops.size, config.channels)
        if encoder.net is None:
            key = content_hash([RECIPE, pixels, cut, *made_by])[:32]
            yield _Array(name, key, (len(index), *shape), name)
            continue
        for movie, own in index.groupby("movie"):
            sides = sources.movies[str(movie)].shape[1:]
            places = [-(-side // encoder.net.backbone.stride) for side in sides]
            used = frames_used(own)
            whole = (len(used), shape[-3], *places)
            key = content_hash([RECIPE, pixels[str(movie)], used.tolist(), *made_by])[:32]
            yield _Array(f"{name}/{movie}", key, whole, name, str(movie))


def crops_digest(index: pd.DataFrame, size: int) -> str:
    """Hash of where crops are cut, in the order of the index."""
    places = index[["movie", "t", "delta", "y", "x"]].to_csv(index=False, lineterminator="\n")
    return sha256(f"{size}\n{places}".encode()).hexdigest()


def _compute(
    sources: Sources,
    index: pd.DataFrame,
    todo: Sequence[_Array],
    blanks: Mapping[str, Path],
    reporter: Reporter,
) -> None:
    """Fills the blank arrays, in parallel over shards and over frames."""
    places = {array: blanks[array.key].resolve() for array in todo}
    parts = ShardReader(sources.shards).parts()
    of_crops = {array.encoder: path for array, path in places.items() if array.movie is None}
    if of_crops:
        shards = [{"path": str(path)} for path in parts]
        with reporter.task("features", len(index), "pair") as progress:
            for row in _mapped(EmbedCrops, shards, sources, of_crops):
                progress.advance(int(row["done"]))
    of_frames = {(array.encoder, array.movie): path for array, path in places.items() if array.movie}
    movies = {array.movie: array.shape[0] for array in todo if array.movie}
    if of_frames:
        rows = [
            {"movie": movie, "first": first} for movie, n in movies.items() for first in range(0, n, FRAMES)
        ]
        with reporter.task("features of whole frames", sum(movies.values()), "frame") as progress:
            for row in _mapped(EmbedFrames, rows, sources, of_frames):
                progress.advance(int(row["done"]))


def _mapped(
    worker: type, rows: Sequence[Mapping[str, Any]], sources: Sources, places: Mapping[Any, Path]
) -> Iterator[dict[str, Any]]:
    """A row for each of `rows`, once an actor of that class is done with it."""
    have = ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call]  # Ray has no type here
    now, most = (max(1, min(len(rows), int(cpus))) for cpus in (have, capacity("CPU")))
    mapped: ray.data.Dataset = ray.data.from_items([*rows], override_num_blocks=len(rows)).map_batches(
        worker,
        batch_size=1,
        fn_constructor_args=(sources, dict(places)),
        compute=ray.data.ActorPoolStrategy(min_size=now, max_size=most),  # the rest may have to be started
    )
    yield from mapped.iter_rows()


class EmbedCrops:
    """An actor that embeds one shard at a time and writes what it finds to the blank arrays.

    Args:
        blanks: the arrays to fill, by encoder.
    """

    def __init__(self, sources: Sources, blanks: Mapping[str, Path]) -> None:
        self._sources = sources
        self._encoders = encoders(self._sources.config, self._sources.model)
        self._blanks = blanks

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embeds the shard at batch["path"]; returns how many crops it holds."""
        reader, intensity = ShardReader(self._sources.shards), self._sources.config.crops.intensity
        crop_id, pairs = reader.read_part(Path(batch["path"][0]), intensity)
        made = {name: self._encoders[name] for name in self._blanks}
        for name, features in embedded(made, torch.from_numpy(pairs)).items():
            write_rows(self._blanks[name], int(crop_id[0]), features.numpy())  # a shard's crops lie together
        return {"done": np.array([len(crop_id)])}


class EmbedFrames:
    """An actor that embeds a few frames of a movie at a time, as `EmbedCrops` does crops.

    Args:
        blanks: the arrays to fill, by encoder and movie.
    """

    def __init__(self, sources: Sources, blanks: Mapping[tuple[str, str], Path]) -> None:
        self._sources = sources
        self._encoders = encoders(self._sources.config, self._sources.model)
        self._blanks = blanks
        reader = ShardReader(self._sources.shards)
        movies = {movie for _, movie in blanks}
        self._ranges = {movie: reader.ranges(movie) for movie in movies}
        index = reader.index()
        self._used = {movie: frames_used(index[index["movie"] == movie]) for movie in movies}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embeds FRAMES frames of batch["movie"] from its used frame batch["first"] on."""
        name, first = str(batch["movie"][0]), int(batch["first"][0])
        own = self._used[name][first : first + FRAMES]
        intensity = self._sources.config.crops.intensity
        for row, t in enumerate(own, start=first):
            raw = self._sources.movies[name].read(int(t), int(t) + 1)
            frame = torch.from_numpy(normalise(raw, self._ranges[name][t : t + 1], intensity)[0])
            for (encoder, movie), path in self._blanks.items():
                if movie == name:
                    write_rows(path, row, self._encoders[encoder].frame(frame)[None].numpy())
        return {"done": np.array([len(own)])}
