"""A step's crops: a function of (seed, epoch, step), inside their region, drawn by weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.crops.draw import CropStream, Source
from tapray.crops.normalise import frame_ranges
from tapray.crops.samplers import STRIDE, grid_shape
from tests.crops.sources import source_of


def source(
    shape: tuple[int, int, int] = (6, 40, 56), size: int = 16, delta: int = 1, seed: int = 0
) -> Source:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 4000, shape).astype(np.uint16)
    place_weights = 0.2 + rng.random((shape[0] - delta, *grid_shape(*shape[1:], size)))
    return source_of(frames, frame_ranges(frames, "linear"), place_weights, delta)


def stream(sources: list[Source] | None = None, seed: int = 0, frames: int = 2) -> CropStream:
    return CropStream(sources or [source(), source((4, 24, 33), seed=1)], 16, frames, "linear", seed)


def test_a_step_is_the_same_for_the_same_seed_and_no_other() -> None:
    one = stream().positions(2, 5, 64)
    assert np.array_equal(one, stream().positions(2, 5, 64))
    for other in (
        stream(seed=1).positions(2, 5, 64),
        stream().positions(3, 5, 64),
        stream().positions(2, 6, 64),
    ):
        assert (one != other).any(axis=1).mean() > 0.9


def test_the_global_generator_is_neither_used_nor_reset() -> None:
    drawn = []
    for seed in (3, 4):
        np.random.seed(seed)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        drawn.append(stream().positions(0, 0, 8))
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert np.array_equal(*drawn)


@given(
    frames=st.integers(3, 7),
    height=st.integers(16, 45),
    width=st.integers(16, 45),
    delta=st.integers(1, 2),
    seed=st.integers(0, 100),
)
@settings(max_examples=40)
def test_every_crop_lies_inside_its_region(
    frames: int, height: int, width: int, delta: int, seed: int
) -> None:
    drawn = stream([source((frames, height, width), delta=delta, seed=seed)], seed)
    places = drawn.positions(seed, 1, 2000)
    assert (places[:, 0] == 0).all()
    assert (places[:, 1:] >= 0).all()
    assert (places[:, 1] + delta < frames).all()
    assert (places[:, 2] + 16 <= height).all()
    assert (places[:, 3] + 16 <= width).all()
    assert set(places[:, 1]) == set(range(frames - delta))  # every pair has its turn: 1 of 37 at the least


def test_crops_are_cut_where_their_places_say() -> None:
    drawn = stream()
    places = drawn.positions(0, 0, 32)
    pairs, ranges = drawn.cut(places)
    assert pairs.shape == (32, 2, 16, 16)
    assert set(places[:, 0]) == {0, 1}
    for (index, t, y, x), pair, limits in zip(places, pairs, ranges, strict=True):
        src = drawn.sources[index]
        assert np.array_equal(pair, src.frames[t : t + 2, y : y + 16, x : x + 16])
        assert np.array_equal(limits, src.ranges[t : t + 2])


def test_how_often_a_place_is_drawn_follows_its_weight() -> None:
    grid, pairs, n = grid_shape(40, 56, 16), 5, 40_000
    rng = np.random.default_rng(4)
    place_weights = rng.random((pairs, *grid)) ** 3
    place_weights[:, 0, 0] = place_weights[:, -1, -1] = 0  # the ends of the search
    base = source()
    drawn = source_of(base.frames, base.ranges, place_weights)
    places = stream([drawn]).positions(0, 0, n)
    index = (places[:, 1], *((places[:, 2:] + STRIDE // 2) // STRIDE).T)
    counts = np.zeros(place_weights.shape)
    np.add.at(counts, index, 1)
    expected = place_weights / place_weights.sum() * n
    assert (counts[:, [0, -1], [0, -1]] == 0).all()
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 3).all()


def test_a_place_is_its_own_eight_by_eight_pixels() -> None:
    base, one = source(), np.zeros((5, *grid_shape(40, 56, 16)))
    one[:, 1, 2] = 1
    drawn = source_of(base.frames, base.ranges, one)
    corner = stream([drawn]).positions(0, 0, 2000)[:, 2:] - [STRIDE, 2 * STRIDE]
    assert set(corner[:, 0]) == set(corner[:, 1]) == set(range(-4, 4))


def test_frame_pairs_and_places_without_weight_are_never_drawn() -> None:
    base, some = source(), np.zeros((5, *grid_shape(40, 56, 16)))
    some[1, 1, 1:3] = [1e-9, 1]  # the smaller is lost in single precision or not, the rest must be
    some[3, 2, 0] = 0.5
    drawn = stream([source_of(base.frames, base.ranges, some)])
    t, y, x = (drawn.positions(0, 0, 5000)[:, 1:] + [0, STRIDE // 2, STRIDE // 2]).T
    found = set(zip(t.tolist(), (y // STRIDE).tolist(), (x // STRIDE).tolist(), strict=True))
    assert {(1, 1, 2), (3, 2, 0)} <= found <= {(1, 1, 1), (1, 1, 2), (3, 2, 0)}


def test_sources_are_drawn_in_proportion_to_their_pairs() -> None:
    places = stream().positions(0, 0, 20_000)
    assert (places[:, 0] == 0).mean() == pytest.approx(5 / 8, abs=0.02)
