"""Labelled crops: positives hold their event, unknown ground is never a negative."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import CropConfig, Role
from tapray.crops.draw import Region
from tapray.crops.sites import INDEX_COLUMNS, labelled_crops
from tapray.crops.splits import SplitRegion
from tapray.data.annotations import Places, render_event_masks
from tapray.data.places import make_table

SHAPE = (20, 90, 110)


def places(seed: int, *, exhaustive: bool, n: int = 12, spread: int = 3) -> Places:
    """Events of both labels, unknown places and many known negatives, all over the movie."""
    rng = np.random.default_rng(seed)

    def at(count: int) -> tuple[np.ndarray, ...]:
        t, y, x = (rng.uniform(0, length, count) for length in SHAPE)
        return t.astype(int), y, x

    tables = []
    for kind, count in (("event", n), ("unknown", n), ("negative", 20 * n)):
        t, y, x = at(count)
        end = t if kind == "negative" else np.minimum(t + rng.integers(1, spread + 1, count), SHAPE[0] - 1)
        label = rng.integers(1, 3, count) if kind == "event" else 0
        tables.append(make_table(kind, label, t, end, y, x, 5))
    table = pd.concat(tables, ignore_index=True)
    table["event_id"] = np.where(table.kind == "event", table.index, -1)
    return Places(table, exhaustive)


def crop(known: Places, config: CropConfig, seed: int = 0, *, role: Role | None = Role.TRAIN) -> pd.DataFrame:
    region = Region("m", 2, 18, 5, 3, 85, 100)
    rng = np.random.default_rng(seed)
    return labelled_crops(known, [SplitRegion(role, region)], config, rng, render_event_masks(known, SHAPE))


def holds(crops: pd.DataFrame, known: pd.DataFrame, size: int, margin: int) -> np.ndarray:
    """(crops, places) whether the place lies in the crop and within margin frames of its pair."""
    t, delta, y, x = (crops[[name]].to_numpy() for name in ("t", "delta", "y", "x"))
    start, end, at_y, at_x = (known[name].to_numpy() for name in ("t", "t_end", "y", "x"))
    in_time = (t + delta >= start - margin) & (t <= end + margin)
    return in_time & (y <= at_y) & (at_y < y + size) & (x <= at_x) & (at_x < x + size)


@given(
    seed=st.integers(0, 1000),
    exhaustive=st.booleans(),
    size=st.integers(8, 40),
    delta=st.integers(1, 4),
    margin=st.integers(0, 3),
    jitter=st.integers(0, 20),
    draw=st.sampled_from(["sites", "uniform"]),
)
@settings(max_examples=25)
def test_what_a_crop_is_called_is_known(
    seed: int, exhaustive: bool, size: int, delta: int, margin: int, jitter: int, draw: str
) -> None:
    config = CropConfig(
        size=size, delta=delta, margin=margin, jitter=jitter, draw=draw, crops_per_frame=8, crops_per_event=2
    )
    known = places(seed, exhaustive=exhaustive)
    index = crop(known, config, seed)
    assert list(index.columns) == INDEX_COLUMNS
    assert ((index.t >= 2) & (index.t + delta < 18)).all()
    assert ((index.y >= 5) & (index.y + size <= 85) & (index.x >= 3) & (index.x + size <= 100)).all()
    assert ((index.label > 0) == (index.event_id >= 0)).all()
    published = draw == "uniform" and exhaustive  # there negatives near events count
    kinds = ["unknown"] if published else ["unknown", "event"]
    risky = known.table[known.table.kind.isin(kinds)]
    assert not holds(index[index.label == 0], risky, size, margin).any()
    if draw == "sites":
        positive = index[index.label > 0]
        assert holds(positive, known.table.loc[positive.event_id], size, 0).diagonal().all()


@pytest.mark.parametrize("draw", ["sites", "uniform"])
def test_the_same_generator_gives_the_same_crops(draw: str) -> None:
    config = CropConfig(size=16, draw=draw, crops_per_frame=20)
    one, same, other = (crop(places(0, exhaustive=True), config, seed) for seed in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)


def test_only_training_crops_are_repeated_and_shifted() -> None:
    config = CropConfig(size=16, jitter=3, crops_per_event=5)
    known = places(0, exhaustive=False)
    train, test = (crop(known, config, role=role) for role in (Role.TRAIN, Role.TEST))
    assert set(train.split) == {"train"}
    assert set(test.split) == {"test"}
    positive = test[test.label > 0]
    assert not positive.duplicated(["t", "event_id"]).any()
    event = known.table.loc[positive.event_id]
    inner = event.y.between(14, 76).to_numpy() & event.x.between(12, 91).to_numpy()
    assert np.abs(positive.y + 8 - event.y.to_numpy())[inner].max() <= 0.5
    counts = train[train.label > 0].groupby(["t", "event_id"]).size()
    assert counts.max() == 5
    assert len(train[train.label > 0].drop_duplicates(["t", "event_id", "y", "x"])) > 3 * len(positive)


def test_an_event_has_one_pair_for_each_two_frames_within_it() -> None:
    table = make_table("event", 1, [4, 8, 12], [5, 11, 13], [40.0, 40, 40], [30.0, 50, 70], 5)
    table["event_id"] = [0, 1, 2]
    for delta, starts in ((1, [4, 8, 9, 10, 12]), (2, [4, 8, 9, 12]), (4, [4, 8, 12])):
        index = crop(Places(table, False), CropConfig(size=16, delta=delta), role=Role.TEST)
        assert index.t.tolist() == starts


def test_two_classes_join_what_three_keep_apart() -> None:
    known = places(0, exhaustive=True)
    two, three = (crop(known, CropConfig(size=16, classes=k)) for k in (2, 3))
    assert set(two.label) == {0, 1}
    assert set(three.label) == {0, 1, 2}
    assert (two.label == three.label.clip(upper=1)).all()


@pytest.mark.parametrize("threshold", [0, 40])
@pytest.mark.parametrize("delta", [1, 3])
def test_the_published_rule_agrees_with_counting_pixels(threshold: int, delta: int) -> None:
    config = CropConfig(
        size=16, delta=delta, draw="uniform", area_threshold=threshold, crops_per_frame=40, classes=3
    )
    known = places(3, exhaustive=True, n=40)
    known = Places(known.table[known.table.kind != "unknown"], True)
    index, masks = crop(known, config), render_event_masks(known, SHAPE)(0, SHAPE[0])
    assert len(index) == (16 - delta) * 40
    both = 0
    for _, row in index.iterrows():
        pair = masks[[row.t, row.t + delta], row.y : row.y + 16, row.x : row.x + 16]
        areas = [(pair == label).sum(axis=(1, 2)).max() for label in (1, 2)]
        expected = 1 + int(np.argmax(areas)) if max(areas) > threshold else 0
        assert row.label == expected
        both += min(areas) > 0
        if row.label:
            event = known.table.loc[row.event_id]
            assert event.label == row.label
            assert event.t <= row.t + delta
            assert event.t_end >= row.t
    assert both > 0
    assert set(index.label) == {0, 1, 2}


def test_uniform_negatives_of_partly_annotated_movies_are_centred_on_known_ones() -> None:
    known = places(5, exhaustive=False)
    index = crop(known, CropConfig(size=24, draw="uniform", crops_per_frame=300))
    negative, at = index[index.label == 0], known.table[known.table.kind == "negative"]
    assert len(negative) > 50
    for _, row in negative.iterrows():
        own = at[at.t == row.t]
        off = np.maximum(np.abs(own.y - row.y - 12), np.abs(own.x - row.x - 12))
        assert off.min() <= 6


def test_the_published_split_shuffles_60_20_20() -> None:
    index = crop(places(0, exhaustive=True), CropConfig(size=16, draw="uniform"), role=None)
    shares = index.split.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.001)


def test_all_crops_of_an_event_form_one_group_and_neighbours_another() -> None:
    index = crop(places(0, exhaustive=True), CropConfig(size=16))
    assert (index.groupby("event_id").group.nunique().drop(-1) == 1).all()
    negative = index[index.label == 0]
    assert set(negative.group).isdisjoint(index[index.label > 0].group)
    for _, own in negative.groupby("group"):
        assert np.ptp(own.t) < 8
        assert max(np.ptp(own.y), np.ptp(own.x)) < 64


def test_a_movie_without_places_gives_background_where_it_is_exhaustive() -> None:
    nothing = make_table([], 0, 0, 0, 0.0, 0.0, 0.0)
    for draw in ("sites", "uniform"):
        config = CropConfig(size=16, draw=draw, crops_per_frame=5)
        assert set(crop(Places(nothing, True), config).label) == {0}
        assert crop(Places(nothing, False), config).empty


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (12, 30)])
def test_places_drawn_anywhere_are_a_quarter_of_the_known_negatives_of_their_part(
    start: int, stop: int
) -> None:
    rng = np.random.default_rng(0)
    t, y, x = rng.integers(0, 30, 400), rng.uniform(20, 180, 400), rng.uniform(20, 180, 400)
    known = Places(make_table("negative", 0, t, t, y, x, 5).assign(event_id=-1), True)
    part = SplitRegion(Role.TRAIN, Region("m", start, stop, 0, 0, 200, 200))
    masks = render_event_masks(known, (30, 200, 200))
    crops = labelled_crops(known, [part], CropConfig(size=16), rng, masks)
    at_known = ((t >= start) & (t < stop - 1)).sum()
    assert len(crops) == at_known + ((t >= start) & (t < stop)).sum() // 4


def test_no_negative_lies_where_an_annotation_may_be_off() -> None:
    table = make_table(["event", *["negative"] * 4], [1, 0, 0, 0, 0], [10] * 5, [11, *[10] * 4], 45, 50, 5)
    table["event_id"] = [0, -1, -1, -1, -1]
    table["x"] = [50.0, 50.0, 60.0, 64.0, 70.0]  # a crop of 16 px reaches 8 px to either side
    config = CropConfig(size=16, margin=0)
    for slack, kept in ((0.0, {52, 56, 62}), (5.0, {56, 62}), (8.0, {62})):
        index = crop(Places(table.assign(slack=slack), False), config, role=Role.TEST)
        assert set(index[index.label == 0].x) == kept
    table["t"] = table["t_end"] = [10, 11, 12, 13, 15]
    table["x"] = 50.0
    for slack, kept in ((0, {11, 12, 13, 15}), (1, {12, 13, 15}), (3, {15})):
        index = crop(Places(table.assign(frame_slack=slack), False), config, role=Role.TEST)
        assert set(index[index.label == 0].t) == kept


def test_around_an_event_are_negatives_but_not_near_it() -> None:
    table = make_table("event", 1, 12, 13, 40.0, 40.0, 5)
    table["event_id"] = [0]
    config = CropConfig(size=16, margin=2)
    for exhaustive, expected in ((True, {6, 7, 8, 16}), (False, set())):  # the movie ends soon after
        index = crop(Places(table, exhaustive), config, role=Role.TEST)
        own = index[(index.label == 0) & (index.y == 32) & (index.x == 32)]
        assert expected <= set(own.t)
        assert not set(own.t) & set(range(9, 16))
