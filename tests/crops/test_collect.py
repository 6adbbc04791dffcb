"""What all movies together give: a limit on negatives, and every class in every split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from tapray.crops.collect import check_classes, check_distinct, keep_negatives
from tapray.data.movies import open_movie
from tapray.entries import Reading
from tapray.errors import UserError


def crops(train: int, test: int, positive: int) -> pd.DataFrame:
    split = ["train"] * train + ["test"] * test + ["train", "test"] * positive
    label = [0] * (train + test) + [1, 1] * positive
    movie = ["a", "b"] * (len(split) // 2) + ["a"] * (len(split) % 2)
    return pd.DataFrame({"movie": movie, "split": split, "label": label})


def test_negatives_are_limited_per_split_over_all_movies_and_positives_are_kept() -> None:
    index = crops(train=30, test=9, positive=4)
    kept = keep_negatives(index, 12, np.random.default_rng(0))
    counts = kept.groupby(["split", "label"]).size()
    assert counts["train", 0] == 12
    assert counts["test", 0] == 9
    assert counts["train", 1] == counts["test", 1] == 4
    assert set(kept[(kept.split == "train") & (kept.label == 0)].movie) == {"a", "b"}
    assert kept.index.is_monotonic_increasing


def test_which_negatives_are_kept_follows_from_the_generator() -> None:
    index = crops(train=30, test=9, positive=4)
    first, again, other = (
        keep_negatives(index, 12, np.random.default_rng(seed)).index.tolist() for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_split_without_a_class_is_named() -> None:
    index = crops(train=3, test=3, positive=2)
    with pytest.raises(UserError, match="the val split holds no known negatives"):
        check_classes(index, 2)


def test_the_same_frames_are_found_however_they_are_stored(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (20, 2, 16, 18)).astype(np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    tifffile.imwrite(tmp_path / "b.tif", pixels[:, 1], compression="zlib", photometric="minisblack")
    first, second = (open_movie(tmp_path / "a.npy", f"c{i}", Reading(channel=i)) for i in range(2))
    check_distinct([first, second])
    with pytest.raises(UserError, match=r"b\.tif: holds the same frames as movie 'c1'"):
        check_distinct([first, second, open_movie(tmp_path / "b.tif")])
