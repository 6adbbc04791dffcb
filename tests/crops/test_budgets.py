"""Label budgets are nested, drawn by the seed alone and shared among the classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tapray.crops.budgets import count_events, draw_budget
from tapray.errors import UserError


def index(divisions: int = 30, deaths: int = 6, negatives: int = 400) -> pd.DataFrame:
    """Two movies whose event ids repeat, three crops an event; other splits hold events too."""
    parts = []
    for number, movie in enumerate(("a", "b")):
        kinds = np.array([1] * (divisions // 2) + [2] * (deaths // 2))
        ids = np.repeat(np.arange(len(kinds)), 3)
        parts.append(pd.DataFrame({"movie": movie, "event_id": ids, "label": kinds[ids], "split": "train"}))
        rest = {"movie": movie, "event_id": -1, "label": 0, "split": "train"}
        parts.append(pd.DataFrame([rest] * (negatives // 2)))
        for split in ("val", "test"):
            other = {"movie": f"{movie}{split}", "event_id": number, "label": 1, "split": split}
            parts.append(pd.DataFrame([other] * 5))
    whole = pd.concat(parts, ignore_index=True)
    whole.insert(0, "crop_id", np.arange(len(whole)))
    return whole


def test_a_budget_counts_events_and_takes_all_their_crops() -> None:
    table = index()
    chosen = table.loc[draw_budget(table, 10, 4, seed=0)]
    assert count_events(chosen) == 10
    assert (chosen.label > 0).sum() == 30
    assert (chosen.label == 0).sum() == 40
    assert set(chosen.split) == {"train"}


@pytest.mark.parametrize("seed", range(4))
def test_smaller_budgets_are_parts_of_larger_ones(seed: int) -> None:
    table, before = index(), set()
    for events in (1, 5, 10, 36):
        rows = set(draw_budget(table, events, 4, seed))
        assert before < rows
        before = rows


def test_the_seed_alone_decides() -> None:
    table = index()
    one = draw_budget(table, 5, 4, seed=1)
    assert np.array_equal(one, draw_budget(table.sample(frac=1, random_state=0), 5, 4, seed=1))
    assert not np.array_equal(one, draw_budget(table, 5, 4, seed=2))


def test_classes_take_turns_as_far_as_they_exist() -> None:
    table = index()
    for events, rarer in ((2, 1), (8, 4), (12, 6), (20, 6)):
        chosen = table.loc[draw_budget(table, events, 1, seed=3)]
        assert count_events(chosen[chosen.label == 2]) == rarer
        assert count_events(chosen[chosen.label == 1]) == events - rarer


def test_more_events_than_there_are_is_the_users_fault() -> None:
    with pytest.raises(UserError, match=r"budget of 37 events exceeds the 36 training events"):
        draw_budget(index(), 37, 4, seed=0)


@pytest.mark.parametrize("seed", range(4))
def test_budgets_of_crops_are_nested_and_stratified(seed: int) -> None:
    table = index()
    train = table[table.split == "train"]
    share, before = train.label.value_counts(normalize=True), set()
    for crops in (3, 10, 50, 200, len(train)):
        rows = draw_budget(table, crops, 4, seed, unit="crops")
        chosen = table.loc[rows]
        assert len(set(rows)) == crops
        assert before < set(rows)
        assert set(chosen.split) == {"train"}
        assert set(chosen.label) == {0, 1, 2}
        counts = chosen.label.value_counts()
        assert all(abs(counts[label] - crops * share[label]) <= 2 for label in share.index)
        before = set(rows)


@pytest.mark.parametrize("crops", [2, 10_000])
def test_a_budget_of_crops_that_cannot_be_is_the_users_fault(crops: int) -> None:
    with pytest.raises(UserError, match=f"budget of {crops} crops is not between 3 "):
        draw_budget(index(), crops, 4, seed=0, unit="crops")
