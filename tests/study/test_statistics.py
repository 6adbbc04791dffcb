"""Intervals against scipy, against plain loops, and against what they promise: coverage."""

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
from tapray.study.statistics import (
    BLOCKS,
    bootstrap_ap,
    bootstrap_f1,
    bootstrap_ratio,
    holm,
    interval,
    paired_bootstrap_ap,
    paired_interval,
    time_blocks,
)


def test_interval_is_student_t() -> None:
    x = np.array([0.81, 0.92, 0.85, 0.88, 0.79])
    mean, std, low, high = interval(x)
    wanted = stats.t.interval(0.95, 4, x.mean(), stats.sem(x))
    assert (mean, std) == pytest.approx((0.85, np.std(x, ddof=1)))
    assert (low, high) == pytest.approx(wanted)
    assert interval(x, level=0.5)[2] > low


def test_interval_of_one_of_none_and_of_equals() -> None:
    assert interval([0.7])[0] == 0.7
    assert np.isnan(interval([0.7])[1:]).all()
    assert np.isnan(interval([])).all()
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.0, 0.5, 0.5)
    assert np.isnan(interval([0.5, float("nan")])).all()


def test_paired_interval_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    draw = rng.normal(size=8)  # what both arms share: the labels of the seed
    a, b = draw + 0.3 + 0.1 * rng.normal(size=8), draw
    mean, low, high = paired_interval(a, b)
    wanted = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert mean == pytest.approx((a - b).mean())
    assert (low, high) == pytest.approx((wanted.low, wanted.high))
    assert low > 0 > interval(a)[2] - interval(b)[3]  # unpaired intervals overlap
    with pytest.raises(ValueError, match="paired"):
        paired_interval(a, b[:-1])


def ap_by_loop(
    labels: NDArray[np.int64], scores: NDArray[np.float64], groups: NDArray[np.int64], n: int, seed: int
) -> NDArray[np.float64]:
    """Average precision of the resamples, crop by crop through scikit-learn."""
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)[:, member]
    return np.array(
        [average_precision_score(labels, scores, sample_weight=w) if w @ labels else np.nan for w in drawn]
    )


@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([0, 1, 8]))
@settings(max_examples=15)
def test_bootstrap_ap_equals_scikit_learn_on_every_resample(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[1], (rng.random(59) < 0.15).astype(np.int64)])
    a, b = ((labels + rng.normal(size=60)).round(decimals) for _ in range(2))
    groups = rng.integers(12, size=60)
    loop_a, loop_b = (ap_by_loop(labels, x, groups, 40, seed) for x in (a, b))
    found = bootstrap_ap(labels, a[None, None], groups, 40, np.random.default_rng(seed))
    assert found == pytest.approx(tuple(np.nanpercentile(loop_a, [2.5, 97.5])))
    paired = paired_bootstrap_ap(
        labels, a[None, None], b[None, None], groups, 40, np.random.default_rng(seed)
    )
    wanted = tuple(np.nanpercentile(loop_a - loop_b, [2.5, 97.5]))
    assert (paired.low, paired.high) == pytest.approx(wanted)
    both = bootstrap_ap(labels, np.stack([a, b])[:, None], groups, 40, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    rng.multinomial(
        len(np.unique(groups)), np.full(len(np.unique(groups)), 1 / len(np.unique(groups))), size=40
    )
    seeds = rng.multinomial(2, [0.5, 0.5], size=40) / 2
    assert both == pytest.approx(
        tuple(np.nanpercentile(loop_a * seeds[:, 0] + loop_b * seeds[:, 1], [2.5, 97.5]))
    )


def test_of_several_classes_it_is_the_mean_of_theirs() -> None:
    rng = np.random.default_rng(4)
    labels = rng.choice(3, 600, p=[0.7, 0.2, 0.1])
    probabilities = rng.dirichlet([1, 1, 1], 600) + 0.5 * np.eye(3)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = class_scores(probabilities)
    low, high = bootstrap_ap(labels, scores[None], np.arange(600) // 3, 500, rng)
    assert low < average_precision(probabilities, labels, 3) < high
    binary = bootstrap_ap(
        (labels > 0).astype(int), 1 - probabilities[None, None, :, 0], np.arange(600) // 3, 500, rng
    )
    assert high < binary[0]  # another statistic


def test_f1_is_that_of_scikit_learn_on_every_resample() -> None:
    rng = np.random.default_rng(5)
    labels, predicted = rng.integers(0, 3, 90), rng.integers(0, 3, (1, 90))
    groups = np.arange(90) // 6
    found = bootstrap_f1(labels, predicted, groups, 60, np.random.default_rng(5))
    drawn = np.random.default_rng(5).multinomial(15, np.full(15, 1 / 15), size=60)[:, groups]
    wanted = [f1_score(labels, predicted[0], labels=[1, 2], average="macro", sample_weight=w) for w in drawn]
    assert found == pytest.approx(tuple(np.percentile(wanted, [2.5, 97.5])))
    assert np.isnan(bootstrap_f1(np.zeros(4, int), np.zeros((1, 4), int), np.arange(4), 5, rng)).all()


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(800) < 0.1).astype(np.int64)
    a = labels + rng.normal(size=800)
    b = a + 0.2 * rng.normal(size=800)
    groups = np.arange(800) // 4
    found = paired_bootstrap_ap(labels, a[None, None], b[None, None], groups, 500, rng)
    alone = bootstrap_ap(labels, a[None, None], groups, 500, rng)
    assert found.low <= average_precision_score(labels, a) - average_precision_score(labels, b) <= found.high
    assert found.high - found.low < 0.7 * (alone[1] - alone[0])
    same = paired_bootstrap_ap(labels, a[None, None], a[None, None], groups, 50, rng)
    assert (same.low, same.high, same.p) == (0.0, 0.0, 1.0)


def test_p_is_small_where_the_difference_is_large_and_even_where_there_is_none() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random(600) < 0.15).astype(np.int64)
    groups, n = np.arange(600) // 3, 400
    noise = [labels + rng.normal(size=600) for _ in range(4)]
    better = [scores + labels for scores in noise]
    assert (
        paired_bootstrap_ap(labels, np.stack(better)[:, None], np.stack(noise)[:, None], groups, n, rng).p
        <= 2 / n + 0.01
    )
    p = [
        paired_bootstrap_ap(labels, *(labels + rng.normal(size=(2, 1, 1, 600))), groups, 100, rng).p
        for _ in range(60)
    ]
    assert np.mean(np.array(p) < 0.1) < 0.25  # by chance a tenth
    assert np.mean(p) > 0.3


def test_seeds_are_drawn_anew_too() -> None:
    """Seeds that differ widen the interval beyond that of the test set."""
    rng = np.random.default_rng(3)
    labels = (rng.random(2000) < 0.2).astype(np.int64)
    groups = np.arange(2000) // 4
    skill = np.array([0.2, 0.8, 1.5, 2.5])[:, None]
    seeds = labels * skill + rng.normal(size=(4, 2000))
    wide = bootstrap_ap(labels, seeds[:, None], groups, 500, rng)
    narrow = bootstrap_ap(labels, np.repeat(seeds.mean(axis=0)[None, None], 4, axis=0), groups, 500, rng)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_holm_corrects_for_the_number_of_claims() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([0.02]).tolist() == [0.02]


def test_blocks_of_time_hold_whole_groups_and_movies_stay_apart() -> None:
    t = np.arange(100).repeat(2)
    movie = np.array(["a", "b"] * 100)
    group = np.where(t % 10 < 3, t // 10, 1000 + np.arange(200))  # three frames of an event go together
    blocks = time_blocks(movie, movie, t, np.char.add(movie, group.astype(str)))
    assert len(np.unique(blocks)) == 2 * BLOCKS
    for name in ("a", "b"):
        own = movie == name
        assert np.bincount(blocks[own] - blocks[own].min()).tolist() == [10] * BLOCKS
        for number in range(10):
            assert len(np.unique(blocks[own & (group == number)])) == 1
    assert not set(blocks[movie == "a"]) & set(blocks[movie == "b"])


def test_fields_of_view_stay_whole_where_there_are_enough() -> None:
    field, movie = np.repeat([f"f{n}" for n in range(6)], 4), np.repeat([f"m{n}" for n in range(12)], 2)
    found = time_blocks(field, movie, np.arange(24), np.arange(24))
    assert found.tolist() == np.repeat(range(6), 4).tolist()


def test_no_event_has_no_interval() -> None:
    found = bootstrap_ap(
        np.zeros(20, int), np.arange(20.0)[None, None], np.arange(20), 10, np.random.default_rng(0)
    )
    assert np.isnan(found).all()


def test_a_thousand_resamples_of_two_thousand_crops_take_under_three_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(2000) < 0.05).astype(np.int64)
    scores = labels + rng.normal(size=2000)
    start = time.process_time()
    low, high = bootstrap_ap(labels, scores[None, None], np.arange(2000) // 2, 1000, rng)
    assert time.process_time() - start < 3
    assert low < average_precision_score(labels, scores) < high


def test_bootstrap_ratio_by_group() -> None:
    events = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
    crops = np.array([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 2.0], [2.0, 0.0, 1.0]])
    low, high = bootstrap_ratio(events, crops, 400, np.random.default_rng(0))
    assert (low[0], high[0]) == (0.0, 0.5)  # 2 of 4 groups hold one event in two crops
    assert np.isnan([low[1], high[1]]).all()  # an empty bin
    assert (low[2], high[2]) == (1.0, 1.0)
