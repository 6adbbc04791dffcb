"""Intervals over seeds against scipy, corrected p values, and what of a test set is drawn together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tapray.study.statistics import BLOCKS, holm, interval, paired_interval, time_blocks


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
