"""A step's crops: a function of (seed, epoch, step), inside their region, drawn by weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.crops.draw import CropStream, Region, Source, make_source
from tapray.crops.normalise import frame_ranges, normalise
from tapray.crops.samplers import STRIDE, grid_shape


def source(
    shape: tuple[int, int, int] = (6, 40, 56), size: int = 16, delta: int = 1, seed: int = 0
) -> Source:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 4000, shape).astype(np.uint16)
    region = Region("m", 0, shape[0], 0, 0, *shape[1:])
    place_weights = 0.2 + rng.random((shape[0] - delta, *grid_shape(*shape[1:], size)))
    return make_source(region, frames, frame_ranges(frames, "linear"), place_weights)


def stream(sources: list[Source] | None = None, seed: int = 0, delta: int = 1) -> CropStream:
    return CropStream(sources or [source(), source((4, 24, 33), seed=1)], 16, delta, "linear", seed)


def test_a_step_is_the_same_for_the_same_seed_and_no_other() -> None:
    one = stream().places(2, 5, 64)
    assert np.array_equal(one, stream().places(2, 5, 64))
    for other in (stream(seed=1).places(2, 5, 64), stream().places(3, 5, 64), stream().places(2, 6, 64)):
        assert (one != other).any(axis=1).mean() > 0.9


def test_the_global_generator_is_neither_used_nor_reset() -> None:
    drawn = []
    for seed in (3, 4):
        np.random.seed(seed)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        drawn.append(stream().places(0, 0, 8))
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert np.array_equal(*drawn)


@given(
    frames=st.integers(3, 7),
    height=st.integers(16, 45),
    width=st.integers(16, 45),
    delta=st.integers(1, 2),
    offset=st.tuples(st.integers(-7, 7), st.integers(-7, 7)),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_every_crop_lies_inside_its_region(
    frames: int, height: int, width: int, delta: int, offset: tuple[int, int], seed: int
) -> None:
    base = source((frames, height, width), delta=delta, seed=seed)
    moved = Source(base.region, base.frames, base.ranges, base.cumulative, base.grid, offset, base.n_pairs)
    drawn = stream([moved], seed, delta)
    places = drawn.places(seed, 1, 2000)
    assert (places[:, 0] == 0).all()
    assert (places[:, 1:] >= 0).all()
    assert (places[:, 1] + delta < frames).all()
    assert (places[:, 2] + 16 <= height).all()
    assert (places[:, 3] + 16 <= width).all()
    assert set(places[:, 1]) == set(range(frames - delta))  # every pair has its turn: 1 of 37 at the least


def test_crops_are_cut_where_their_places_say() -> None:
    drawn = stream()
    places = drawn.places(0, 0, 32)
    pairs = drawn.cut(places)
    assert pairs.shape == (32, 2, 16, 16)
    assert set(places[:, 0]) == {0, 1}
    for (index, t, y, x), pair in zip(places, pairs, strict=True):
        src = drawn.sources[index]
        raw = src.frames[t : t + 2, y : y + 16, x : x + 16]
        assert np.array_equal(pair, normalise(raw, src.ranges[t : t + 2], "linear"))


def test_how_often_a_place_is_drawn_follows_its_weight() -> None:
    grid, pairs, n = grid_shape(40, 56, 16), 5, 40_000
    rng = np.random.default_rng(4)
    place_weights = rng.random((pairs, *grid)) ** 3
    place_weights[:, 0, 0] = place_weights[:, -1, -1] = 0  # the ends of the search
    base = source()
    drawn = make_source(base.region, base.frames, base.ranges, place_weights)
    places = stream([drawn]).places(0, 0, n)
    index = (places[:, 1], *((places[:, 2:] + STRIDE // 2) // STRIDE).T)
    counts = np.zeros(place_weights.shape)
    np.add.at(counts, index, 1)
    expected = place_weights / place_weights.sum() * n
    assert (counts[:, [0, -1], [0, -1]] == 0).all()
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 3).all()


def test_a_place_is_its_own_eight_by_eight_pixels_from_the_offset_on() -> None:
    base, one = source(), np.zeros((5, 2, 3))
    one[:, 1, 2] = 1
    drawn = make_source(base.region, base.frames, base.ranges, one, (3, 7))
    corner = stream([drawn]).places(0, 0, 2000)[:, 2:] - [3 + STRIDE, 7 + 2 * STRIDE]
    assert set(corner[:, 0]) == set(corner[:, 1]) == set(range(-4, 4))


def test_sources_are_drawn_in_proportion_to_their_pairs() -> None:
    places = stream().places(0, 0, 20_000)
    assert (places[:, 0] == 0).mean() == pytest.approx(5 / 8, abs=0.02)
