"""The feature store: what all trials share, memory-mapped.

A folder with index.parquet, pixels.npy (N, 2, H, W) and, for each frozen encoder,
<init>-<draw>.npy (N, 2, C, h, w); all float16, in index order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapray.config import HeadKind, Init
from tapray.model.encoders import draws
from tapray.model.heads import build_head
from tapray.study.fit import in_batches


def encoder_name(init: Init, draw: int) -> str:
    """Stem of the file that holds a frozen encoder's features."""
    return f"{init.value}-{draw}"


@dataclass(frozen=True)
class FeatureStore:
    """Reads a feature folder; cheap to create in every worker."""

    folder: Path

    def index(self) -> pd.DataFrame:
        """One row per crop, in the order of all arrays."""
        index: pd.DataFrame = pq.read_table(self.folder / "index.parquet").to_pandas()
        return index

    def pixels(self) -> NDArray[np.float16]:
        """(N, 2, H, W) normalised crop pairs."""
        return self._array("pixels")

    def features(self, init: Init, draw: int) -> NDArray[np.float16]:
        """(N, 2, C, h, w) dense features of a frozen encoder."""
        return self._array(encoder_name(init, draw))

    def _array(self, name: str) -> NDArray[np.float16]:
        # copy on write: torch wants writable memory, and the file cannot change
        array: NDArray[np.float16] = np.load(self.folder / f"{name}.npy", mmap_mode="c")
        return array


def frozen_encoders(inits: tuple[Init, ...], random_draws: int) -> list[tuple[Init, int]]:
    """The (init, draw) whose features a study needs."""
    return [(init, draw) for init in inits if init.frozen for draw in range(draws(init, random_draws))]


@lru_cache(maxsize=4)
def fronts(folder: Path, init: Init, draw: int, head: HeadKind) -> Tensor:
    """(N, ...) float16 or float32: the head's parameter-free part for every crop, kept per process.

    Pooled statistics are small and kept in float32; whole features stay float16.
    """
    features = FeatureStore(folder).features(init, draw)
    probe = build_head(head, features.shape[2], features.shape[3], 2, 0.0, torch.Generator().manual_seed(0))
    if head in (HeadKind.LINEAR, HeadKind.RESNET):
        return probe.front(torch.from_numpy(features))
    return in_batches(probe.front, features)
