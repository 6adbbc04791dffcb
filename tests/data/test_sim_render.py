"""Simulated frames tell the direction of time by events and growth alone."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tapray.config import SimulateConfig
from tapray.data.sim_render import BLEACHED, OFFSET
from tapray.data.simulate import simulate_movie


def _still(**other: Any) -> SimulateConfig:
    """A field in which nothing happens and nothing grows."""
    return SimulateConfig(division_rate=0, death_rate=0, growth=False, **other)


def test_brightness_and_noise_stay() -> None:
    movie = simulate_movie(_still(height=128, width=128, n_nuclei=7), 0)
    sky = movie.frames[:, (movie.tracks == 0).all(axis=0)].astype(float) - OFFSET
    level = sky.mean(axis=1)
    assert level[-20:].mean() / level[:20].mean() == pytest.approx(1 - BLEACHED * 2 / 3, abs=0.01)
    noise = np.diff(sky, axis=0).std(axis=1)
    assert noise[-20:].mean() / noise[:20].mean() == pytest.approx(1, abs=0.02)


@functools.cache
def _normalised(config: SimulateConfig, index: int) -> NDArray[np.float64]:
    stack = simulate_movie(config, index).frames.astype(float)
    low, high = np.percentile(stack, (1, 99.8), axis=(1, 2))[..., None, None]
    return np.asarray((stack - low) / (high - low))


def _arrow_accuracy(config: SimulateConfig, delta: int, share: float) -> tuple[float, int]:
    """Held-out accuracy of a logistic regression that is to tell which of two crops came first.

    ``share`` of the crops are used, those with the largest change.
    """
    rng = np.random.default_rng(0)
    differences, movies = [], []
    for index in range(6):
        stack = _normalised(config, index)
        first, second = _tiles(stack[:-delta]), _tiles(stack[delta:])
        change = ((second - first) ** 2).sum(axis=(1, 2)) + np.abs((second - first).sum(axis=(1, 2)))
        busy = change > np.quantile(change, 1 - share)
        first, second = first[busy], second[busy]
        skew = ((second - first) ** 3).mean(axis=(1, 2)) / (second - first).std(axis=(1, 2)) ** 3
        differences.append(np.column_stack([_statistics(second) - _statistics(first), skew]))
        movies.append(np.full(len(first), index))
    features, movie = np.concatenate(differences), np.concatenate(movies)
    forward = rng.random(len(features)) < 0.5
    features[~forward] *= -1  # every statistic changes its sign when the frames are swapped
    train = movie < 3
    model = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(fit_intercept=False))
    model.fit(features[train], forward[train])
    return float(model.score(features[~train], forward[~train])), int((~train).sum())


def _tiles(stack: NDArray[np.float64], size: int = 32) -> NDArray[np.float64]:
    frames, height, width = stack.shape
    grid = stack.reshape(frames, height // size, size, width // size, size)
    return grid.transpose(0, 1, 3, 2, 4).reshape(-1, size, size)


def _statistics(crops: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = crops.reshape(len(crops), -1)
    edges = [np.abs(np.diff(crops, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    quantiles = np.quantile(flat, (0.05, 0.5, 0.9, 0.98), axis=1)
    spot = (flat**2).sum(axis=1) ** 2 / (flat**4).sum(axis=1)
    return np.column_stack([flat.mean(axis=1), flat.std(axis=1), flat.max(axis=1), *quantiles, *edges, spot])


@pytest.mark.parametrize(("delta", "share"), [(1, 0.1), (1, 0.3), (5, 0.3)])
def test_without_events_time_has_no_direction(delta: int, share: float) -> None:
    config = _still(frames=40, height=128, width=128, n_nuclei=9)
    accuracy, crops = _arrow_accuracy(config, delta, share)
    assert crops > 1500 * share
    # Neighbouring pairs share a frame, so crops are worth fewer than they are.
    assert accuracy == pytest.approx(0.5, abs=3 * 0.5 / (crops / 2) ** 0.5)


def test_events_give_time_a_direction() -> None:
    config = SimulateConfig(frames=40, height=128, width=128, n_nuclei=9, division_rate=0.05, death_rate=0.03)
    assert _arrow_accuracy(config, 1, 0.1)[0] > 0.6
