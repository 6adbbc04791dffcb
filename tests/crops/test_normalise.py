"""Frames are scaled by their own 1 and 99.8 percentiles, whatever their contrast."""

from __future__ import annotations

import numpy as np
import pytest

from tapray.crops.normalise import frame_ranges, normalise, transform


@pytest.mark.parametrize("intensity", ["linear", "sqrt"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_percentiles_of_each_frame_become_0_and_1(intensity: str, dtype: type) -> None:
    frames = np.random.default_rng(0).integers(3, 250, size=(3, 40, 50)).astype(dtype)
    frames[1] //= 2
    ranges = frame_ranges(frames, intensity)
    out = normalise(frames, ranges, intensity)
    assert ranges.shape == (3, 2)
    assert out.dtype == np.float32
    for frame in out:
        assert np.percentile(frame, [1, 99.8]) == pytest.approx([0, 1], abs=1e-5)


def test_the_square_root_is_taken_before_the_percentiles() -> None:
    frames = np.array([[[4, 9], [16, 25]]], np.uint8)
    assert transform(frames, "sqrt").ravel().tolist() == [2, 3, 4, 5]
    assert transform(frames, "linear").ravel().tolist() == [4, 9, 16, 25]
    assert frames.ravel().tolist() == [4, 9, 16, 25]


@pytest.mark.parametrize("intensity", ["linear", "sqrt"])
@pytest.mark.parametrize("ground", [0, 40_000, 65_535])
def test_a_frame_without_contrast_becomes_0(intensity: str, ground: int) -> None:
    frames = np.full((1, 30, 30), ground, np.uint16)
    assert not normalise(frames, frame_ranges(frames, intensity), intensity).any()


def test_an_almost_empty_frame_is_scaled_by_its_brightest_pixel() -> None:
    frames = np.zeros((1, 100, 100), np.uint16)
    frames[0, 0, :4] = 60_000  # fewer than 0.2 % of the pixels
    out = normalise(frames, frame_ranges(frames, "linear"), "linear")
    assert out.max() == 1
