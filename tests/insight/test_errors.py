"""Errors are sorted by what is true of their crops, and every crop is counted once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tapray.insight.errors import FEWEST_ERRORS, RATES, SHARES, bins_of, covered, crop_facts, error_table

SIZE = 20


def crops(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "movie": rng.choice(["a", "b"], n),
            "t": rng.integers(0, 18, n),
            "delta": 1,
            "y": rng.integers(0, 80, n),
            "x": rng.integers(0, 60, n),
            "event_id": rng.choice([-1, -1, -1, 0, 1], n),
        }
    )


EVENTS = pd.DataFrame(
    {"event_id": [0, 1], "label": [1, 2], "t": [5, 12], "t_end": [6, 14], "y": [30.0, 60], "x": [40.0, 20]}
)


def facts(given: pd.DataFrame) -> pd.DataFrame:
    def left(movie: str, t: int) -> NDArray[np.bool_]:
        return np.broadcast_to(np.arange(80) < (40 if movie == "a" else 0), (100, 80))

    shapes = {"a": (20, 100, 80), "b": (20, 100, 80)}
    found = crop_facts(given, {"a": EVENTS, "b": EVENTS[:0]}, shapes, SIZE)
    return found.assign(**{"share that is cells": covered(given, left, SIZE)})


def one(**columns: Any) -> pd.Series:
    row = {"movie": "a", "t": 5, "delta": 1, "y": 20, "x": 30, "event_id": -1, **columns}
    return facts(pd.DataFrame([row])).iloc[0]


def test_facts_of_a_crop() -> None:
    at = one(event_id=0)
    assert at["kind"] == "division"
    assert at["phase"] == 0
    assert at["frames to the event"] == at["pixels to an event"] == 0
    assert at["share that is cells"] == 0.5
    assert at["pixels to the border"] == 30
    beside = one(x=46)
    assert beside["pixels to an event"] == 16
    assert beside["frames to the event"] == np.inf
    assert np.isnan(beside["since"])
    for t, frames in ((4, 1), (3, 2), (6, 1), (9, 4), (0, 5)):
        later = one(t=t)
        assert later["frames to the event"] == frames
        assert later["since"] == t - 5
        assert later["pixels to an event"] == np.inf
    assert one(movie="b")["pixels to an event"] == np.inf
    assert one(event_id=1, t=13)["phase"] == 1
    assert one(event_id=1)["kind"] == "death"
    assert one()["kind"] == "none"


def test_every_crop_has_one_bin_of_every_dimension() -> None:
    given = crops()
    found = facts(given)
    assert found.index.equals(given.index)
    for dimension in found.columns.drop("since"):
        names, bins = bins_of(found, dimension, SIZE)
        known = found["phase"].notna() if dimension == "phase" else np.ones(len(given), bool)
        assert ((bins >= 0) == known).all()
        assert bins.max() < len(names) == len(set(names)), dimension


@given(st.integers(0, 200))
@settings(max_examples=20)
def test_shares_and_rates_are_those_of_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = crops(seed=seed)
    truth = rng.random(len(given)) < 0.3
    predicted = rng.random((3, len(given))) < 0.4
    units = given["t"].to_numpy() // 4, given["t"].to_numpy() // 2
    table = error_table(facts(given).drop(columns="since"), truth, predicted, *units, SIZE, rng)
    for dimension, own in table.groupby("dimension"):
        names, bins = bins_of(facts(given), str(dimension), SIZE)
        wide = own.pivot(index="bin", columns="quantity", values="value").loc[names]
        inside = bins >= 0
        for name, hit in (("true_positive", truth & predicted), ("false_positive", ~truth & predicted)):
            counts = np.array([hit[:, bins == b].sum() for b in range(len(names))]) / 3
            expected = counts / max(hit[:, inside].sum() / 3, 1e-9)
            np.testing.assert_allclose(np.nan_to_num(wide[name]), expected)
        missed = [
            (truth & ~predicted)[:, bins == b].sum() / 3 / max((truth & (bins == b)).sum(), 1)
            for b in range(len(names))
        ]
        np.testing.assert_allclose(np.nan_to_num(wide["miss_rate"]), missed)
    assert set(table["quantity"]) == {*SHARES, *RATES}
    known = table.dropna()
    assert (known["low"] <= known["value"] + 1e-9).all()
    assert (known["high"] >= known["value"] - 1e-9).all()
    assert known["low"].min() >= 0
    assert known["high"].max() <= 1
    varied = known[known["value"].between(0, 1, inclusive="neither")]
    assert (varied["high"] > varied["low"]).all()
    crops_of = table.groupby(["dimension", "quantity"])["crops"].transform("sum")
    few = table["quantity"].isin(SHARES) & (crops_of < FEWEST_ERRORS)
    assert table.loc[few, ["low", "high"]].isna().all().all()


def test_intervals_hold_what_is_true_of_all() -> None:
    given = crops(2000)
    rng = np.random.default_rng(0)
    truth = rng.random(2000) < 0.5
    predicted = truth ^ (rng.random((4, 2000)) < 0.2)
    units = np.arange(2000) % 25, np.arange(2000) % 100
    table = error_table(facts(given).drop(columns="since"), truth, predicted, *units, SIZE, rng)
    # Blocks of time that are the bins themselves: how often one is drawn tells nothing of its share.
    blocks = given["t"].to_numpy() // 2
    widths = []
    for groups in (units[1], blocks):
        by_bin = error_table(facts(given)[["frame"]], truth, predicted, blocks, groups, SIZE, rng)
        own = by_bin[by_bin["quantity"] == "false_positive"]
        widths.append(((own["high"] - own["low"]) / own["value"]).mean())
    assert widths[0] < 0.6 * widths[1]
    rates = table[table["quantity"].isin(RATES) & (table["crops"] > 50)]
    assert ((rates["low"] <= 0.2) & (rates["high"] >= 0.2)).mean() > 0.8
    assert rates["value"].mean() == pytest.approx(0.2, abs=0.02)
