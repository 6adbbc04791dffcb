"""The threshold of a detector: which names are right, false or no matter, and where most events are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import CropConfig
from tapray.crops.draw import Region
from tapray.data.places import Places, make_table, merge
from tapray.threshold import LEAST, MOST_PAIRS, best_threshold, densest, events_in, judged, match

CROPS = CropConfig(size=40, margin=2)
REGION = Region("m", 10, 40, 0, 50, 200, 250)


def named(*rows: tuple[int, float, float, float]) -> pd.DataFrame:
    """What a search finds: t, y, x, probability."""
    found = pd.DataFrame(rows, columns=["t", "y", "x", "probability"])
    return found.assign(t_end=found["t"] + 1)


def places(*, exhaustive: bool) -> Places:
    """Two events in the region and one beyond it, a known negative and unknown ground."""
    tables = [
        make_table("event", 1, [15, 15, 15], [16, 16, 16], 100.0, [100.0, 150.0, 45.0], 10.0),
        make_table("negative", 0, 30, 30, 30.0, 220.0, 10.0),
        make_table("unknown", 0, 20, 21, 180.0, 60.0, 10.0),
    ]
    return Places(merge(tables), exhaustive)


def test_each_event_is_matched_once_by_the_most_probable() -> None:
    events = places(exhaustive=True).table.query("kind == 'event'")
    found = named((15, 102, 101, 0.9), (16, 99, 100, 0.8), (17, 100, 149, 0.7), (20, 100, 150, 0.6))
    assert match(found, events, 20, 2).tolist() == [True, False, True, False]
    assert match(found, events, 20, 4).tolist() == [True, False, True, False]
    assert match(found[1:], events, 20, 2).tolist() == [True, True, False]
    assert match(found, events[:0], 20, 2).tolist() == [False] * 4
    assert match(found[:0], events, 20, 2).tolist() == []


def test_names_are_right_false_or_no_matter() -> None:
    found = named(
        (15, 102, 101, 0.9),  # an event
        (15, 100, 52, 0.8),  # near one that lies beyond the region
        (20, 181, 62, 0.7),  # on unknown ground
        (30, 31, 221, 0.6),  # on a known negative
        (35, 150, 150, 0.5),  # where nothing is known, unless the annotation is exhaustive
    )
    probability, label = judged(found, places(exhaustive=True), REGION, CROPS)
    assert sorted(zip(probability, label, strict=True)) == [(0, 1), (0.5, 0), (0.6, 0), (0.9, 1)]
    probability, label = judged(found, places(exhaustive=False), REGION, CROPS)
    assert sorted(zip(probability, label, strict=True)) == [(0, 1), (0.6, 0), (0.9, 1)]


def test_nothing_found_is_every_event_missed() -> None:
    probability, label = judged(named(), places(exhaustive=True), REGION, CROPS)
    assert probability.tolist() == [0, 0]
    assert label.tolist() == [1, 1]


def test_what_was_not_found_is_named_by_no_threshold() -> None:
    p, events = np.array([0.0, 0.0, 0.0, 0.3, 0.6, 0.9]), np.array([1, 1, 1, 1, 0, 1]) > 0
    threshold = best_threshold(p, events)
    assert threshold == pytest.approx((0.3 + LEAST) / 2)  # and not 0, which would name what was not found
    assert best_threshold(np.array([0.0, 0.3]), np.array([True, True])) == pytest.approx((0.3 + LEAST) / 2)
    near = np.array([0.5, np.nextafter(0.5, 1)])
    assert best_threshold(near, np.array([False, True])) == near[1]


@given(
    times=st.lists(st.integers(0, 399), min_size=1, max_size=30),
    start=st.integers(0, 100),
    length=st.integers(3, 300),
    delta=st.integers(1, 3),
)
@settings(max_examples=100)
def test_the_densest_part_is_found(times: list[int], start: int, length: int, delta: int) -> None:
    region = Region("m", start, start + length + delta, 0, 0, 9, 9)
    table = make_table("event", 1, times, np.array(times) + 1, 4.0, 4.0, 10.0)
    part = densest(region, table, delta)
    assert region.start <= part.start < part.stop <= region.stop
    assert part.stop - part.start - delta == min(length, MOST_PAIRS)
    most = max(
        sum(first <= t < first + MOST_PAIRS for t in times if start <= t < start + length)
        for first in range(start, max(start, start + length - MOST_PAIRS) + 1)
    )
    assert len(events_in(part, table, delta)) == most


@pytest.mark.parametrize(("t", "inside"), [(9, False), (10, True), (38, True), (39, False)])
def test_an_event_needs_both_frames_in_the_region(t: int, inside: bool) -> None:
    table = make_table("event", 1, t, t + 1, 100.0, 100.0, 10.0)
    assert len(events_in(REGION, table, 1)) == inside
