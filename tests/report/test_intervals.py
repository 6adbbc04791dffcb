"""Intervals over seeds and test set: the same resamples for all arms, corrected over all comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tapray.report.intervals import Resampled, cell_intervals, pair_intervals, resample
from tapray.report.tables import compare
from tapray.study.statistics import holm

TAP, OTHER = ("tap", "pooled", 5), ("end_to_end", "pooled", 5)


@pytest.fixture(scope="module")
def study(synthetic: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return synthetic(budgets=(5, 10), seeds=4, n_test=600)


@pytest.fixture(scope="module")
def resampled(study: dict[str, Any]) -> Resampled:
    return resample(study["predictions"], 800, np.random.default_rng(0))


def test_intervals_hold_the_mean_of_their_cell(study: dict[str, Any], resampled: Resampled) -> None:
    assert resampled.n_groups == 10
    table = cell_intervals(resampled, np.random.default_rng(0))
    assert len(table) == 3 * 2 * 2
    means = study["results"].groupby(["init", "head", "budget"])[["ap", "f1"]].mean()
    for _, row in table.iterrows():
        mean = means.loc[(row["init"], row["head"], row["budget"])]
        assert row["ap_test_low"] < mean["ap"] < row["ap_test_high"]
        assert row["f1_test_low"] <= mean["f1"] <= row["f1_test_high"]  # a poor arm finds nothing


def test_arms_are_compared_on_the_seeds_that_both_have(resampled: Resampled) -> None:
    scores = {
        "ap": {TAP: {0: np.full(50, 0.9), 1: np.full(50, 0.7)}, OTHER: {1: np.full(50, 0.4)}},
    }
    encoders = {TAP: {0: 0, 1: 0}, OTHER: {1: 1}}
    tap, other = Resampled(scores, encoders, 3).means("ap", [TAP, OTHER], np.random.default_rng(0))
    assert np.unique(tap - other).tolist() == pytest.approx([0.3])
    same = resampled.means("ap", [TAP, TAP], np.random.default_rng(0))
    np.testing.assert_array_equal(*same)  # the same draws of seeds and of the test set


def test_p_values_are_corrected_within_the_claim_and_beyond_it_each_counted_once(
    study: dict[str, Any], resampled: Resampled
) -> None:
    comparisons = compare(study["results"], study["trials"])
    pairs = pair_intervals(resampled, comparisons, np.random.default_rng(0))
    assert set(pairs["metric"]) == {"ap", "f1"}
    assert set(pairs["head"]) == {"pooled", "linear", "best"}
    assert (pairs["claimed"] == ((pairs["head"] == "best") & (pairs["metric"] == "ap"))).all()
    assert pairs["claimed"].sum() == 2 * 2  # budgets, other arms
    key = ["metric", "budget", "other", "head_tap", "head_other"]
    for _, own in pairs.groupby("claimed"):
        once = own.drop_duplicates(key)
        np.testing.assert_allclose(once["p_holm"], holm(once["p"].to_numpy()))
        merged = own.merge(once[[*key, "p_holm"]], on=key, suffixes=("", "_once"))
        pd.testing.assert_series_equal(merged["p_holm"], merged["p_holm_once"], check_names=False)
    others = pairs[~pairs["claimed"]]
    assert len(others.drop_duplicates(key)) < len(others)  # F1 of the heads that were chosen, and of each
    of_heads = pair_intervals(
        resampled, compare(study["results"], study["trials"].iloc[:0]), np.random.default_rng(0)
    )
    assert (of_heads["claimed"] == (of_heads["metric"] == "ap")).all()


def test_runs_of_other_crops_are_refused(study: dict[str, Any]) -> None:
    predictions = dict(study["predictions"])
    key = next(iter(predictions))
    predictions[key] = {**predictions[key], "labels": 1 - predictions[key]["labels"]}
    with pytest.raises(ValueError, match="same test crops"):
        resample(predictions, 5, np.random.default_rng(0))
