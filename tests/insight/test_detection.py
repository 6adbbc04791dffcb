"""Numbers of how well attribution finds events, on maps whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tapray.insight.detection import (
    bin_edges,
    detection_scores,
    detection_table,
    likeness,
    near_events,
    time_parts,
)
from tapray.insight.detection import tallies as tallied


def tallies(maps: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    return tallied(maps, inside, np.ones_like(inside), bin_edges([maps]))


def events(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"t": 5, "t_end": 6, "y": 20.0, "x": 30.0, "radius": 6.0, **columns}, index=[0])


def test_an_event_is_near_within_its_radius_in_the_frames_that_show_it() -> None:
    found = near_events(events(), 5, 1, (20, 30), 2)
    y, x = np.nonzero(found)
    at = (2 * y + 0.5, 2 * x + 0.5)
    assert np.hypot(at[0] - 20, at[1] - 30).max() <= 6
    assert found.sum() == pytest.approx(np.pi * 9, abs=4)
    for t, delta, shown in ((4, 1, False), (6, 1, False), (4, 2, True), (3, 4, True)):
        assert near_events(events(), t, delta, (20, 30), 2).any() == shown


def test_an_event_that_is_marked_in_one_frame_is_near_in_the_pairs_that_hold_it() -> None:
    for t, near in ((3, False), (4, True), (5, True), (6, False)):
        assert near_events(events(t_end=5), t, 1, (20, 30), 2).any() == near


def test_ground_of_which_nothing_is_known_does_not_count() -> None:
    maps = np.ones((1, 4, 4), np.float32)
    inside, known = np.zeros((2, 1, 4, 4), bool)
    inside[0, 0], known[0, :2] = True, True
    found = detection_scores(tallied(maps, inside, known, bin_edges([maps])).sum(axis=0))
    assert found["area_share"] == 0.5


def test_blocks_are_stretches_or_long_parts_of_them() -> None:
    assert time_parts([8]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert time_parts([2, 2, 2, 2]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@given(st.integers(0, 500))
def test_shares_and_auc_are_those_of_all_places(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 50, size=(3, 6, 7)).astype(np.float32)
    inside = rng.random(maps.shape) < 0.3
    inside[0, 0, :2] = [True, False]
    found = detection_scores(tallies(maps, inside).sum(axis=0))
    assert found["mass_share"] == pytest.approx(maps[inside].sum() / max(maps.sum(), 1e-9))
    assert found["area_share"] == pytest.approx(inside.mean())
    assert found["auc"] == pytest.approx(roc_auc_score(inside.ravel(), maps.ravel()), abs=0.02)


def test_a_map_of_the_events_is_perfect_and_an_even_one_is_chance() -> None:
    inside = np.zeros((8, 10, 10), bool)
    inside[:, 2:4, 2:4] = True
    rng = np.random.default_rng(0)
    sums = {
        "perfect": tallies(inside.astype(np.float32), inside),
        "even": tallies(np.ones((8, 10, 10), np.float32), inside),
    }
    found = detection_table(sums, time_parts([8]), rng).set_index(["net", "metric"])
    perfect, even = found.loc["perfect"], found.loc["even"]
    assert found.loc[("perfect_minus_even", "auc"), "value"] == pytest.approx(0.5)
    assert perfect.loc["auc", "value"] == 1
    assert perfect.loc["mass_share", "value"] == 1
    assert perfect.loc["enrichment", ["value", "low", "high"]].tolist() == pytest.approx([25] * 3)
    assert even.loc["auc", "value"] == pytest.approx(0.5)
    assert even.loc["enrichment", "value"] == pytest.approx(1)
    none = detection_scores(tallies(np.ones((2, 4, 4), np.float32), np.zeros((2, 4, 4), bool)).sum(axis=0))
    assert np.isnan(none["auc"])


def test_maps_of_other_nets_are_unlike() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 3, 20, 20)).astype(np.float32)
    assert likeness(one, one) == pytest.approx(1)
    assert likeness(one, 2 * one) == pytest.approx(1)
    assert abs(likeness(one, other)) < 0.1
