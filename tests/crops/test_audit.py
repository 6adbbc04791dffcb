"""The audit finds exactly the test crops that share a pixel of a frame with another split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.crops.audit import audit
from tapray.crops.draw import Region

SIZE = 8


def crops(rows: list[tuple[str, str, int, int, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "movie", "t", "delta", "y", "x"])


def pixels(row: pd.Series) -> set[tuple[str, int, int, int]]:
    """Every pixel a crop pair occupies."""
    return {
        (row.movie, t, y, x)
        for t in (row.t, row.t + row.delta)
        for y in range(row.y, row.y + SIZE)
        for x in range(row.x, row.x + SIZE)
    }


def brute_force(index: pd.DataFrame, pretrain: list[Region]) -> dict[str, float]:
    held = [pixels(row) for _, row in index.iterrows()]
    seen = {
        (r.movie, t, y, x)
        for r in pretrain
        for t in range(r.start, r.stop)
        for y in range(r.top, r.bottom)
        for x in range(r.left, r.right)
    }
    test = [own for own, split in zip(held, index.split, strict=True) if split == "test"]
    others = {
        "train": set().union(
            *(own for own, split in zip(held, index.split, strict=True) if split == "train")
        ),
        "val": set().union(*(own for own, split in zip(held, index.split, strict=True) if split == "val")),
        "pretrain": seen,
    }
    n = max(len(test), 1)
    return {name: sum(bool(own & other) for own in test) / n for name, other in others.items()}


@given(seed=st.integers(0, 10_000), n=st.integers(1, 14), delta=st.integers(1, 3))
@settings(max_examples=25)
def test_the_audit_agrees_with_brute_force(seed: int, n: int, delta: int) -> None:
    rng = np.random.default_rng(seed)
    index = pd.DataFrame(
        {
            "split": rng.choice(["train", "val", "test"], n),
            "movie": rng.choice(["a", "b"], n),
            "t": rng.integers(0, 6, n),
            "delta": delta,
            "y": rng.integers(0, 20, n),
            "x": rng.integers(0, 20, n),
        }
    )
    start, top, left = rng.integers(0, 5), *rng.integers(0, 20, 2)
    region = Region("a", start, start + 2, top, left, top + 9, left + 5)
    result = audit(index, SIZE, [region])
    assert result.n_test == (index.split == "test").sum()
    expected = brute_force(index, [region])
    assert {name: getattr(result, name) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("other", "overlap"),
    [
        (("a", 5, 1, 10, 10), 1),
        (("a", 5, 1, 17, 17), 1),  # one pixel
        (("a", 5, 1, 18, 10), 0),  # side by side
        (("a", 6, 1, 10, 10), 1),  # the second frame of the one is the first of the other
        (("a", 4, 1, 10, 10), 1),
        (("a", 7, 1, 10, 10), 0),
        (("a", 3, 3, 10, 10), 1),  # frame 6, between them nothing
        (("a", 4, 3, 10, 10), 0),
        (("b", 5, 1, 10, 10), 0),
    ],
)
def test_a_single_overlap(other: tuple[str, int, int, int, int], overlap: int) -> None:
    index = crops([("test", "a", 5, 1, 10, 10), ("train", *other)])
    result = audit(index, SIZE, [])
    assert (result.train, result.val, result.leaks) == (overlap, 0, bool(overlap))


def test_no_test_crops_no_leak() -> None:
    result = audit(crops([("train", "a", 0, 1, 0, 0)]), SIZE, [Region("a", 0, 9, 0, 0, 99, 99)])
    assert result.as_dict() == {"n_test": 0, "train": 0, "val": 0, "pretrain": 0}


@given(seed=st.integers(0, 10_000), halo=st.integers(0, 7))
@settings(max_examples=25)
def test_features_cut_from_whole_frames_reach_beyond_their_crops(seed: int, halo: int) -> None:
    rng = np.random.default_rng(seed)
    place = {name: rng.integers(10, 40, 12) for name in ("y", "x")}
    index = pd.DataFrame(
        {"split": rng.choice(["train", "test"], 12), "movie": "a", "t": 0, "delta": 1, **place}
    )
    wide = index.assign(y=index.y - halo, x=index.x - halo)
    region = [Region("a", 0, 1, 0, 0, 12, 12)]
    assert audit(index, SIZE, region, halo) == audit(wide, SIZE + 2 * halo, region)
    assert audit(index, SIZE, region, halo).train >= audit(index, SIZE, region).train
