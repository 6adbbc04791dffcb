"""Labels needed: read off the line through the means, with what lies beyond it said so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapray.study.efficiency import labels_needed, needed_interval, pareto, ratio_interval

BUDGETS = np.array([5.0, 10.0, 20.0, 40.0])


def test_budgets_are_interpolated_over_their_logarithm() -> None:
    scores = np.array([0.2, 0.4, 0.6, 0.8])
    assert labels_needed(BUDGETS, scores, 0.4) == pytest.approx(10)
    assert labels_needed(BUDGETS, scores, 0.5) == pytest.approx(np.sqrt(200))
    assert labels_needed(BUDGETS, scores, 0.1) == 5  # there already
    assert labels_needed(BUDGETS, scores, 0.9) == np.inf  # never
    both = labels_needed(BUDGETS, np.stack([scores, scores + 0.2]), np.array([0.6, 0.6]))
    assert both == pytest.approx([20, 10])


def test_a_dip_is_taken_as_noise() -> None:
    assert labels_needed(BUDGETS, np.array([0.2, 0.6, 0.5, 0.7]), 0.6) == pytest.approx(10)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0, 1))
def test_what_is_found_is_a_budget_that_was_run_or_beyond(scores: list[float], target: float) -> None:
    found = float(labels_needed(BUDGETS, np.array(scores), target))
    assert (5 <= found <= 40) == (max(scores) >= target)
    assert np.isinf(found) == (max(scores) < target)


def test_intervals_hold_the_value_and_narrow_with_the_spread() -> None:
    rng = np.random.default_rng(0)
    means = np.array([0.2, 0.4, 0.6, 0.8])
    widths = []
    for spread in (0.02, 0.1):
        value, low, high = needed_interval(BUDGETS, means, means + rng.normal(0, spread, (500, 4)), 0.5)
        assert low <= value <= high
        widths.append(high - low)
    assert widths[0] < widths[1]
    never = needed_interval(BUDGETS, means, means + np.zeros((50, 1)), 0.9)
    assert never == (np.inf, np.inf, np.inf)


def test_resamples_without_an_event_count_for_nothing() -> None:
    means = np.array([0.2, 0.4, 0.6, 0.8])
    drawn = np.vstack([means + np.zeros((20, 1)), np.full((20, 4), np.nan)])
    assert needed_interval(BUDGETS, means, drawn, 0.4) == pytest.approx((10, 10, 10))
    assert ratio_interval(BUDGETS, np.stack([means, means]), np.stack([drawn, drawn]))[1] == (1, 1, 1)
    assert np.isnan(needed_interval(BUDGETS, means, drawn[20:], 0.4)[1:]).all()


def test_a_ratio_says_how_many_times_the_labels_the_other_arm_needs() -> None:
    rng = np.random.default_rng(0)
    other = np.array([0.2, 0.4, 0.6, 0.8])
    tap = other + 0.2  # one budget ahead, each twice the one before
    noise = rng.normal(0, 0.005, (300, 1))
    rows = ratio_interval(BUDGETS, np.stack([tap, other]), np.stack([tap + noise, other + noise]))
    assert [row[0] for row in rows[:3]] == pytest.approx([2, 2, 2], rel=1e-6)
    assert rows[3][0] == np.inf
    assert rows[0][1] <= 2 + 1e-9
    assert rows[0][2] >= 2 - 1e-9


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_nothing_beats_the_front_and_something_beats_the_rest(points: list[tuple[int, int]]) -> None:
    gain, cost = np.array(points).T
    front = pareto(gain, cost)
    assert front.any()
    for number, (own, price) in enumerate(points):
        beaten = any((g >= own and c < price) or (g > own and c <= price) for g, c in points)
        assert front[number] == (not beaten)
