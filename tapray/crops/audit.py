"""Leakage audit: the share of test crops that overlap what was trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.crops.draw import Region


@dataclass(frozen=True)
class Audit:
    """Shares (0 to 1) of test crops that overlap in space and in time.

    A crop occupies its square in frames t and t + delta.
    """

    n_test: int
    train: float  # overlap with a training crop
    val: float  # overlap with a validation crop
    pretrain: float  # overlap with what pretraining may see

    @property
    def leaks(self) -> bool:
        """Whether any test crop overlaps anything that was learnt from."""
        return max(self.train, self.val, self.pretrain) > 0

    def as_dict(self) -> dict[str, float]:
        """The fields by name, for the manifest."""
        return asdict(self)


def audit(index: pd.DataFrame, size: int, pretrain: list[Region], halo: int = 0) -> Audit:
    """Audits a crop index (columns movie, t, delta, y, x, split).

    Args:
        size: side of the crops in pixels.
        pretrain: the regions that pretraining draws from.
        halo: pixels beyond a crop that its features depend on: their receptive field, where features
            are cut from those of whole frames.
    """
    index = index.assign(y=index.y - halo, x=index.x - halo)
    size += 2 * halo
    test = index[index.split == "test"]
    shares = {split: _share(_overlaps(test, index[index.split == split], size)) for split in ("train", "val")}
    seen = np.zeros(len(test), dtype=bool)
    for region in pretrain:
        seen |= _in_region(test, region, size)
    return Audit(len(test), shares["train"], shares["val"], _share(seen))


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _overlaps(test: pd.DataFrame, other: pd.DataFrame, size: int) -> NDArray[np.bool_]:
    """(n_test,) whether a test crop shares a pixel of a frame with any of `other`.

    Crops are compared within a frame of a movie, so the cost grows with the crops per frame.
    """
    hit = np.zeros(len(test), dtype=bool)
    mine, theirs = _frames(test), dict(list(_frames(other).groupby(["movie", "frame"])))
    for key, group in mine.groupby(["movie", "frame"]):
        if key not in theirs:
            continue
        apart = np.abs(group[["y", "x"]].to_numpy()[:, None] - theirs[key][["y", "x"]].to_numpy()[None])
        hit[group.row.to_numpy()] |= (apart < size).all(axis=2).any(axis=1)
    return hit


def _frames(crops: pd.DataFrame) -> pd.DataFrame:
    """One row per crop and frame it occupies, `row` counting the crops."""
    base = crops[["movie", "y", "x"]].assign(row=np.arange(len(crops)))
    return pd.concat([base.assign(frame=crops.t), base.assign(frame=crops.t + crops.delta)])


def _in_region(test: pd.DataFrame, region: Region, size: int) -> NDArray[np.bool_]:
    first, second = test.t, test.t + test.delta
    time = first.between(region.start, region.stop - 1) | second.between(region.start, region.stop - 1)
    space = (
        (test.y < region.bottom)
        & (test.y + size > region.top)
        & (test.x < region.right)
        & (test.x + size > region.left)
    )
    return ((test.movie == region.movie) & time & space).to_numpy()
