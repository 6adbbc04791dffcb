"""The feature store: what all trials of a study share, memory-mapped.

A folder with index.parquet and arrays.json, which says where in the feature cache each array lies: pixels
(N, 2, H, W) and, for each frozen encoder and layer, <init>-<draw>-<layer> (N, 2, C, h, w); all float16, in
index order. Features of whole frames are <init>-<draw>-<layer>/<movie> (T, C, h, w), of the frames that
crops lie in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from tapray.config import Dimension, HeadKind, Init, JobConfig, Layer, Pooling, StudyConfig
from tapray.model.encoders import draws
from tapray.model.heads import HEADS, Head, HeadOptions, build_head
from tapray.study.cache import read
from tapray.study.fit import in_batches

PIXELS = "pixels"
SETTLED_ON = 256  # training crops whose features tell mean and spread of their channels


def features_name(init: Init, draw: int, layer: Layer) -> str:
    """Stem of the file that holds a frozen encoder's features."""
    return f"{init.value}-{draw}-{layer.value}"


@dataclass(frozen=True)
class FeatureStore:
    """Reads a feature folder; cheap to create in every worker."""

    folder: Path

    def index(self) -> pd.DataFrame:
        """One row per crop, in the order of all arrays."""
        index: pd.DataFrame = pq.read_table(self.folder / "index.parquet").to_pandas()
        return index

    def paths(self) -> dict[str, Path]:
        """The files of all arrays, by name."""
        return {name: self.folder / path for name, path in self._told()["arrays"].items()}

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "arrays.json").read_text())
        return told

    def complete(self) -> bool:
        """Whether every array is still in the cache."""
        return all(path.exists() for path in self.paths().values())

    def pixels(self) -> Tensor:
        """(N, 2, H, W) float16 normalised crop pairs."""
        return torch.from_numpy(read(self.paths()[PIXELS]))

    def features(self, init: Init, draw: int, layer: Layer) -> Tensor | FrameCrops:
        """(N, 2, C, h, w) float16 dense features of a frozen encoder."""
        name, paths = features_name(init, draw, layer), self.paths()
        if name in paths:
            return torch.from_numpy(read(paths[name]))
        frames = {
            key.partition("/")[2]: read(path) for key, path in paths.items() if key.startswith(f"{name}/")
        }
        return FrameCrops(self.index(), frames, *self._told()["cut"][name])


class FrameCrops:
    """Crops cut from the dense features of whole frames when they are asked for.

    A crop that does not begin on the grid of the features is cut where they begin before it.

    Args:
        index: the crop index; frames: (T, C, h, w) by movie, of its frames that crops lie in, in order.
        side: of a crop, in features; stride: pixels from one feature to the next.
    """

    def __init__(
        self, index: pd.DataFrame, frames: Mapping[str, NDArray[np.float16]], side: int, stride: int
    ) -> None:
        self._at = np.zeros((len(index), 4), np.int64)  # places of both frames, y and x
        self._movie = pd.Categorical(index["movie"], list(frames)).codes
        self._windows = [sliding_window_view(own, (side, side), axis=(2, 3)) for own in frames.values()]
        for number, name in enumerate(frames):
            own = index[index["movie"] == name]
            used = frames_used(own)
            times = [np.searchsorted(used, own["t"] + shift) for shift in (0, own["delta"])]
            places = [own[axis].to_numpy() // stride for axis in ("y", "x")]
            self._at[self._movie == number] = np.stack([*times, *places], axis=1)
        channels = next(iter(frames.values())).shape[1]
        self.shape = (len(index), 2, channels, side, side)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Tensor:
        """(..., 2, C, side, side) float16 of the crops `rows` (...)."""
        wanted = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        flat = wanted.ravel()
        out = np.empty((len(flat), *self.shape[1:]), np.float16)
        for number, windows in enumerate(self._windows):
            own = self._movie[flat] == number
            first, second, y, x = self._at[flat[own]].T
            out[own] = windows[np.stack([first, second], 1), :, y[:, None], x[:, None]]
        return torch.from_numpy(out.reshape(*wanted.shape, *self.shape[1:]))


def frames_used(index: pd.DataFrame) -> NDArray[np.int64]:
    """The frames of a movie that its crops lie in, in order."""
    used: NDArray[np.int64] = np.union1d(index["t"], index["t"] + index["delta"])
    return used


def frozen_encoders(config: JobConfig) -> list[tuple[Init, int]]:
    """The (init, draw) whose features a study needs."""
    return [(init, draw) for init in config.study.inits if init.frozen for draw in range(draws(init, config))]


def layers(study: StudyConfig) -> tuple[Layer, ...]:
    """The layers whose features a study needs."""
    if Dimension.LAYER in study.search:
        return tuple(Layer)
    return (Layer(str(study.fixed.get(Dimension.LAYER, Layer.PROJECTION))),)


@lru_cache(maxsize=8)
def features(folder: Path, init: Init, draw: int, layer: Layer) -> Tensor | FrameCrops:
    """As `FeatureStore.features`, kept per process."""
    return FeatureStore(folder).features(init, draw, layer)


def fronts(
    folder: Path, init: Init, draw: int, head: HeadKind, layer: Layer, pooling: Pooling
) -> Tensor | FrameCrops:
    """(N, ...) float16 or float32: the head's parameter-free part for every crop.

    Pooled statistics are small, and kept per process in float32; whole features stay float16, where they are.
    """
    if HEADS[head].condenses:
        return _condensed(folder, init, draw, head, layer, pooling)
    return features(folder, init, draw, layer)


@cache
def _condensed(folder: Path, init: Init, draw: int, head: HeadKind, layer: Layer, pooling: Pooling) -> Tensor:
    whole = features(folder, init, draw, layer)
    generator, options = torch.Generator().manual_seed(0), HeadOptions(pooling=pooling)
    probe = build_head(head, whole.shape[2], whole.shape[3], 2, generator, options)
    return in_batches(probe.front, whole)


@lru_cache(maxsize=2)
def index_of(folder: Path) -> pd.DataFrame:
    """As `FeatureStore.index`, kept per process."""
    return FeatureStore(folder).index()


@lru_cache(maxsize=6)
def rows_of(folder: Path, split: str) -> NDArray[np.int64]:
    """The crops of a split, in order."""
    index = index_of(folder)
    rows: NDArray[np.int64] = index.loc[index.split == split, "crop_id"].to_numpy(copy=True)
    return rows


@lru_cache(maxsize=8)
def settled_head(folder: Path, init: Init, draw: int, kind: HeadKind, layer: Layer, pooling: Pooling) -> Head:
    """A head that has taken mean and spread from training crops, evenly so many of them."""
    train, inputs = rows_of(folder, "train"), fronts(folder, init, draw, kind, layer, pooling)
    few = train
    if not HEADS[kind].condenses and len(train) > SETTLED_ON:
        few = train[np.linspace(0, len(train) - 1, SETTLED_ON).astype(np.int64)]
    channels, side = features(folder, init, draw, layer).shape[2:4]
    head = build_head(kind, channels, side, 2, torch.Generator().manual_seed(0), HeadOptions(pooling=pooling))
    head.settle(inputs[torch.from_numpy(few)].float())
    return head
