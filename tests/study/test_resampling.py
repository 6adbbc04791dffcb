"""Resamples of test set and seeds, against scikit-learn on each of them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score

from tapray.study.metrics import average_precision, class_scores
from tapray.study.resampling import (
    band,
    bootstrap_ratio,
    difference,
    draws,
    over_seeds,
    resampled_ap,
    resampled_f1,
    seed_weights,
    shared_encoders,
)


@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([0, 1, 8]))
@settings(max_examples=15)
def test_ap_equals_scikit_learn_on_every_resample(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[1], (rng.random(59) < 0.15).astype(np.int64)])
    scores = (labels + rng.normal(size=(2, 60))).round(decimals)
    member = rng.permutation(np.arange(60) % 12)
    drawn = draws(12, 40, rng)
    found = resampled_ap(labels, scores[:, None], member, drawn)
    for row, own in zip(found, scores, strict=True):
        wanted = [
            average_precision_score(labels, own, sample_weight=weight) if weight @ labels else np.nan
            for weight in drawn[:, member]
        ]
        assert row == pytest.approx(np.array(wanted), nan_ok=True)


def test_of_several_classes_it_is_the_mean_of_theirs() -> None:
    rng = np.random.default_rng(4)
    labels = rng.choice(3, 600, p=[0.7, 0.2, 0.1])
    probabilities = rng.dirichlet([1, 1, 1], 600) + 0.5 * np.eye(3)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    member, once = np.arange(600) // 3, np.ones((1, 200))
    whole = resampled_ap(labels, class_scores(probabilities)[None], member, once)
    assert whole[0, 0] == pytest.approx(average_precision(probabilities, labels, 3))


def test_f1_is_that_of_scikit_learn_on_every_resample() -> None:
    rng = np.random.default_rng(5)
    labels, predicted = rng.integers(0, 3, 90), rng.integers(0, 3, (1, 90))
    member = np.arange(90) // 6
    drawn = draws(15, 60, rng)
    wanted = [
        f1_score(labels, predicted[0], labels=[1, 2], average="macro", sample_weight=w)
        for w in drawn[:, member]
    ]
    assert resampled_f1(labels, predicted, member, drawn)[0] == pytest.approx(wanted)


def test_no_event_has_no_interval() -> None:
    labels, member, drawn = np.zeros(20, np.int64), np.arange(20), np.ones((5, 20))
    assert np.isnan(band(resampled_ap(labels, np.arange(20.0)[None, None], member, drawn)[0])).all()
    assert np.isnan(band(resampled_f1(labels, np.zeros((1, 20), int), member, drawn)[0])).all()


@pytest.mark.parametrize("encoders", [[0] * 6, [*range(6)], [0, 1, 2, 0, 1, 0]])
def test_a_mean_over_seeds_varies_as_student_says(encoders: list[int]) -> None:
    rng = np.random.default_rng(0)
    weights = seed_weights(encoders, 40_000, rng)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert np.median(weights, axis=0) == pytest.approx([1 / 6] * 6, abs=0.01)
    shared = 1 < len(set(encoders)) < 6
    x = np.array(encoders, float) if shared else rng.normal(size=6)
    low, high = np.percentile(weights @ x, [2.5, 97.5])
    own = np.array([0.0, 1.0, 2.0]) if shared else x  # the means of the encoders, or the seeds
    wanted = stats.t.interval(0.95, len(own) - 1, x.mean(), stats.sem(own))
    assert (low, high) == pytest.approx(wanted, rel=0.05, abs=0.02)


def test_a_few_encoders_promise_no_more_than_a_few_samples() -> None:
    """Of three encoders and no true difference, one in twenty p values is below 0.05."""
    rng, p = np.random.default_rng(1), []
    encoders = np.arange(9) % 3
    for _ in range(400):
        x = rng.normal(size=3)[encoders] + 0.3 * rng.normal(size=9)
        p.append(difference(seed_weights(encoders.tolist(), 1000, rng) @ x).p)
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(p) < 0.005) < 0.02


def test_a_pair_is_drawn_by_the_encoders_of_which_there_are_fewest_but_several() -> None:
    own, three, one = [0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2], [0] * 6
    assert shared_encoders([own, three]) == three
    assert shared_encoders([one, three, own]) == three
    assert shared_encoders([one, own]) == own
    assert shared_encoders([one, one]) == one


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(800) < 0.1).astype(np.int64)
    a = labels + rng.normal(size=800)
    b = a + 0.2 * rng.normal(size=800)
    both = resampled_ap(labels, np.stack([a, b])[:, None], np.arange(800) // 4, draws(200, 500, rng))
    found, alone = difference(both[0] - both[1]), band(both[0])
    assert found.low <= average_precision_score(labels, a) - average_precision_score(labels, b) <= found.high
    assert found.high - found.low < 0.7 * (alone[1] - alone[0])
    same = difference(both[0] - both[0])
    assert (same.low, same.high, same.p) == (0.0, 0.0, 1.0)


def difference_of(
    labels: NDArray[np.int64], a: NDArray[np.float64], b: NDArray[np.float64], rng: np.random.Generator
) -> float:
    """p of AP(a) - AP(b), scores (S, N) by seed."""
    drawn, member = draws(len(labels) // 3, 400, rng), np.arange(len(labels)) // 3
    weights = seed_weights(range(len(a)), 400, rng)
    first, second = (over_seeds(resampled_ap(labels, x[:, None], member, drawn), weights) for x in (a, b))
    return difference(first - second).p


def test_p_is_small_where_the_difference_is_large_and_even_where_there_is_none() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random(600) < 0.15).astype(np.int64)
    noise = labels + rng.normal(size=(4, 600))
    assert difference_of(labels, noise + labels, noise, rng) <= 2 / 400 + 0.01
    p = [difference_of(labels, *(labels + rng.normal(size=(2, 1, 600))), rng) for _ in range(60)]
    assert np.mean(np.array(p) < 0.1) < 0.25  # by chance a tenth
    assert np.mean(p) > 0.3


def test_seeds_that_differ_widen_the_interval_beyond_that_of_the_test_set() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(2000) < 0.2).astype(np.int64)
    skill = np.array([0.2, 0.8, 1.5, 2.5])[:, None]
    seeds = labels * skill + rng.normal(size=(4, 2000))
    drawn, weights = draws(500, 500, rng), seed_weights(range(4), 500, rng)
    widths = []
    for scores in (seeds, np.repeat(seeds.mean(axis=0)[None], 4, axis=0)):
        low, high = band(
            over_seeds(resampled_ap(labels, scores[:, None], np.arange(2000) // 4, drawn), weights)
        )
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]


def test_a_thousand_resamples_of_two_thousand_crops_take_under_three_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(2000) < 0.05).astype(np.int64)
    scores = labels + rng.normal(size=2000)
    start = time.process_time()
    low, high = band(
        resampled_ap(labels, scores[None, None], np.arange(2000) // 2, draws(1000, 1000, rng))[0]
    )
    assert time.process_time() - start < 3
    assert low < average_precision_score(labels, scores) < high


def test_bootstrap_ratio_by_group() -> None:
    events = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
    crops = np.array([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 2.0], [2.0, 0.0, 1.0]])
    low, high = bootstrap_ratio(events, crops, 400, np.random.default_rng(0))
    assert (low[0], high[0]) == (0.0, 0.5)  # 2 of 4 groups hold one event in two crops
    assert np.isnan([low[1], high[1]]).all()  # an empty bin
    assert (low[2], high[2]) == (1.0, 1.0)
