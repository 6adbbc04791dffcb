"""Background rejection: by brightness or by masks, with the share counted exactly."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.crops.background import SHARE, bright, holds_foreground


@given(seed=st.integers(0, 1000), delta=st.integers(1, 3), size=st.integers(4, 20))
@settings(max_examples=30)
def test_a_crop_is_kept_where_either_frame_holds_enough(seed: int, delta: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((6, 30, 34)) < rng.choice([0.001, SHARE, 0.3], (6, 1, 1))
    n = 40
    crops = pd.DataFrame(
        {
            "t": rng.integers(0, 6 - delta, n),
            "delta": delta,
            "y": rng.integers(0, 31 - size, n),
            "x": rng.integers(0, 35 - size, n),
        }
    )
    expected = [
        max(masks[t, c.y : c.y + size, c.x : c.x + size].sum() for t in (c.t, c.t + delta)) >= SHARE * size**2
        for c in crops.itertuples()
    ]
    assert holds_foreground(crops, lambda t: masks[t], size).tolist() == expected


def test_bright_bodies_are_foreground_and_a_flat_frame_has_none() -> None:
    frame = np.random.default_rng(0).poisson(100, (60, 80)).astype(np.uint16)
    frame[20:32, 30:44] += 400
    found = bright(frame)
    assert found[22:30, 32:42].all()
    assert found.sum() < 2 * 12 * 14
    assert not bright(np.full((20, 20), 7, np.uint8)).any()


def test_no_crops_read_no_frames() -> None:
    empty = pd.DataFrame({name: np.empty(0, np.int64) for name in ("t", "delta", "y", "x")})
    assert holds_foreground(empty, lambda t: 1 / 0, 8).tolist() == []  # type: ignore[arg-type]
