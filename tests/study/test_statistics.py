"""Intervals against scipy, against plain loops, and against what they promise: coverage."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score

from tapray.study.statistics import (
    bootstrap_ap,
    bootstrap_interval,
    bootstrap_ratio,
    interval,
    paired_bootstrap_ap,
    paired_interval,
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


def test_bootstrap_resamples_whole_groups() -> None:
    groups = np.array(["b", "a", "b", "c", "a"])
    seen = []

    def collect(index: NDArray[np.intp]) -> float:
        seen.append(np.bincount(index, minlength=5))
        return 0.0

    assert bootstrap_interval(collect, groups, 50, np.random.default_rng(0)) == (0.0, 0.0)
    counts = np.array(seen)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(counts, axis=0)) > 5


def test_bootstrap_of_the_mean_has_the_width_of_theory() -> None:
    """200 groups of 5 equal crops: the interval is that of 200 values, not of 1000."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=200)
    x, groups = np.repeat(own, 5), np.repeat(np.arange(200), 5)
    low, high = bootstrap_interval(lambda i: float(x[i].mean()), groups, 2000, rng)
    assert high - low == pytest.approx(2 * 1.96 * own.std() / np.sqrt(200), rel=0.1)
    narrow = bootstrap_interval(lambda i: float(x[i].mean()), np.arange(1000), 2000, rng)
    assert narrow[1] - narrow[0] < 0.6 * (high - low)


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
    found = bootstrap_ap(labels, a, groups, 40, np.random.default_rng(seed))
    assert found == pytest.approx(tuple(np.nanpercentile(loop_a, [2.5, 97.5])))
    paired = paired_bootstrap_ap(labels, a, b, groups, 40, np.random.default_rng(seed))
    assert paired == pytest.approx(tuple(np.nanpercentile(loop_a - loop_b, [2.5, 97.5])))
    both = bootstrap_ap(labels, np.stack([a, b]), groups, 40, np.random.default_rng(seed))
    assert both == pytest.approx(tuple(np.nanpercentile((loop_a + loop_b) / 2, [2.5, 97.5])))


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(800) < 0.1).astype(np.int64)
    a = labels + rng.normal(size=800)
    b = a + 0.2 * rng.normal(size=800)
    groups = np.arange(800) // 4
    low, high = paired_bootstrap_ap(labels, a, b, groups, 500, rng)
    alone = bootstrap_ap(labels, a, groups, 500, rng)
    assert low <= average_precision_score(labels, a) - average_precision_score(labels, b) <= high
    assert high - low < 0.7 * (alone[1] - alone[0])
    assert paired_bootstrap_ap(labels, a, a, groups, 50, rng) == (0.0, 0.0)


def test_no_event_has_no_interval() -> None:
    found = bootstrap_ap(np.zeros(20, int), np.arange(20.0), np.arange(20), 10, np.random.default_rng(0))
    assert np.isnan(found).all()


def test_a_thousand_resamples_of_two_thousand_crops_take_under_three_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(2000) < 0.05).astype(np.int64)
    scores = labels + rng.normal(size=2000)
    start = time.process_time()
    low, high = bootstrap_ap(labels, scores, np.arange(2000) // 2, 1000, rng)
    assert time.process_time() - start < 3
    assert low < average_precision_score(labels, scores) < high


def test_bootstrap_ratio_by_group() -> None:
    events = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
    crops = np.array([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 2.0], [2.0, 0.0, 1.0]])
    low, high = bootstrap_ratio(events, crops, 400, np.random.default_rng(0))
    assert (low[0], high[0]) == (0.0, 0.5)  # 2 of 4 groups hold one event in two crops
    assert np.isnan([low[1], high[1]]).all()  # an empty bin
    assert (low[2], high[2]) == (1.0, 1.0)
