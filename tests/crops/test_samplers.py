"""Score maps find what changes; weights are what each sampler promises."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from tapray.config import SamplerKind
from tapray.crops.samplers import STRIDE, grid_shape, pair_weights, smooth
from tapray.crops.samplers import score_pair as score_smoothed

SIZE = 16


def score_pair(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    return score_smoothed(smooth(first), smooth(second), size)


def weights(change: np.ndarray, kind: SamplerKind, candidates: float) -> np.ndarray:
    """Of places (P, gy, gx) of that change and brightness, summing to 1."""
    rows = np.stack(list(pair_weights(np.stack([change, change], axis=1), kind, candidates)))
    return (rows / rows.sum()).reshape(change.shape)


def ground(seed: int = 0, shape: tuple[int, int] = (64, 96)) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def test_the_places_cover_the_frame() -> None:
    assert grid_shape(48, 48, 48) == (1, 1)
    assert grid_shape(55, 56, 48) == (1, 2)


@pytest.mark.parametrize("size", [16, 17, 24])
def test_a_planted_change_scores_highest_in_the_crop_around_it(size: int) -> None:
    first, second = ground(0), ground(1)
    top, left = 2 * STRIDE, 5 * STRIDE
    centre_y, centre_x = top + size // 2, left + size // 2
    second[centre_y - 2 : centre_y + 2, centre_x - 2 : centre_x + 2] += 5
    change, _ = score_pair(first, second, size)
    assert change.shape == grid_shape(64, 96, size)
    assert np.unravel_index(change.argmax(), change.shape) == (2, 5)


def test_scores_are_those_of_the_central_two_thirds() -> None:
    frame = ground()
    frame[30:34, 50:60] += 3
    flat = gaussian_filter(frame, 2.0, mode="nearest")
    _, brightness = score_pair(frame, frame, 24)  # central 16 of 24
    expected = flat[8 + 4 : 8 + 20, 40 + 4 : 40 + 20].mean()
    assert brightness[1, 5] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("length", [2, 3])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", [*SamplerKind])
def test_a_movie_played_backwards_is_drawn_from_alike(kind: SamplerKind, channels: int, length: int) -> None:
    """Else the places themselves would tell the arrow, such as of a lamp that flickers."""
    lamp = np.array([[1.0, 1.6, 0.7, 1.3, 0.9], [0.8, 0.4, 1.9, 1.1, 2.5]])[:channels].T
    frames = [
        smooth(np.stack([(ground(10 * n + seed) + 1) * one for n, one in enumerate(light)])).squeeze()
        for seed, light in enumerate(lamp.astype(np.float32))
    ]

    def drawn(movie: list[np.ndarray]) -> np.ndarray:
        pairs = np.stack([score_smoothed(a, b, SIZE) for a, b in pairwise(movie)])
        scores = np.lib.stride_tricks.sliding_window_view(pairs, length - 1, axis=0).mean(axis=-1)
        return np.stack(list(pair_weights(scores, kind, 20)))

    np.testing.assert_allclose(drawn(frames[::-1])[::-1], drawn(frames), rtol=1e-4, atol=1e-9)


def test_bleaching_alone_is_no_change() -> None:
    first = ground() + 1
    first[20:30, 40:50] += 2
    change, _ = score_pair(first, first * 0.8 + 0.1, SIZE)
    assert change.max() < 1e-8


def test_the_direction_of_time_does_not_matter_to_the_order_of_places() -> None:
    first, second = ground(0), ground(1) * 2 + 1
    orders = [score_pair(a, b, SIZE)[0].ravel().argsort() for a, b in ((first, second), (second, first))]
    assert (orders[0] == orders[1]).mean() > 0.9


@pytest.mark.parametrize("kind", list(SamplerKind))
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 1)])
def test_weights_sum_to_one_also_without_contrast(kind: SamplerKind, shape: tuple[int, ...]) -> None:
    same = np.zeros(shape, np.float32)
    drawn = weights(same, kind, 5000)
    assert drawn.shape == shape
    assert drawn.sum() == pytest.approx(1)
    assert np.ptp(drawn) == 0  # equal places are drawn alike


def test_change_weights_are_the_best_of_so_many_uniform_draws() -> None:
    rng, k, n = np.random.default_rng(0), 12, 60
    change = rng.normal(size=(1, 6, 10)).astype(np.float32)
    drawn = weights(change, SamplerKind.CHANGE, k).ravel()
    best = change.ravel()[rng.integers(n, size=(40_000, k))].max(axis=1)
    counts = np.array([(best == value).mean() for value in change.ravel()])
    assert drawn == pytest.approx(counts, abs=0.02)
    assert drawn.argmax() == change.argmax()


def test_a_jump_of_a_whole_frame_draws_no_more_crops_to_its_pair() -> None:
    change = np.random.default_rng(0).random((1, 5, 5)).astype(np.float32).repeat(2, axis=0)
    change[1] *= 1024
    drawn = weights(change, SamplerKind.CHANGE, 12)
    assert drawn[0].sum() == pytest.approx(drawn[1].sum())


def test_foreground_draws_from_the_brighter_half_alone() -> None:
    bright = np.arange(20, dtype=np.float32).reshape(1, 4, 5)
    drawn = weights(bright, SamplerKind.FOREGROUND, 12).ravel()
    assert (drawn[:10] == 0).all()
    assert drawn[10:] == pytest.approx(0.1)


@pytest.mark.parametrize("sample", [1 << 20, 40])
def test_quantiles_are_ranks_among_all_places_or_a_sample_of_them(
    sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = np.random.default_rng(3).gamma(1, size=(6, 5, 8)).astype(np.float32).round(1)  # with ties
    monkeypatch.setattr("tapray.crops.samplers.SAMPLE", sample)
    drawn = weights(change, SamplerKind.CHANGE, 4)
    over_usual = change / np.median(change, axis=(1, 2), keepdims=True)
    expected = (rankdata(over_usual) - 0.5).reshape(change.shape) ** 3
    expected /= expected.sum()
    if sample > change.size:
        np.testing.assert_allclose(drawn, expected, rtol=1e-9)
    else:
        assert np.corrcoef(drawn.ravel(), expected.ravel())[0, 1] > 0.97
