"""Calibration errors from sums are those of the crops, and of torchmetrics and netcal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from tapray.study.metrics import N_BINS, probability_scores
from tapray.study.reliability import SCORES, block_sums, reliability_scores

CASES = 1000


def case(seed: int, k: int = 2) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (n, k) and labels (n,): sharp or soft, of few or many crops, calibrated or not."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 400))
    logits = rng.normal(size=(n, k)) * rng.uniform(0.1, 4)
    logits[:, 0] += rng.uniform(0, 3)
    return softmax(logits, axis=1), rng.integers(k, size=n) * (rng.random(n) < rng.uniform(0.1, 1))


def scored(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    blocks = np.zeros(len(labels), np.int64)
    return {
        name: float(v[0]) for name, v in reliability_scores(block_sums(probabilities, labels, blocks)).items()
    }


@pytest.mark.filterwarnings("ignore")
def test_errors_are_those_of_torchmetrics() -> None:
    for seed in range(CASES):
        p, y = case(seed)
        event, truth = torch.from_numpy(p[:, 1]), torch.from_numpy(y)
        found = scored(p, y)
        for name, norm in (("ece", "l1"), ("mce", "max")):
            theirs = binary_calibration_error(event, truth, N_BINS, norm)
            assert found[name] == pytest.approx(float(theirs), abs=1e-6), (seed, name)
        p, y = case(seed, 3)
        top = multiclass_calibration_error(torch.from_numpy(p), torch.from_numpy(y), 3, N_BINS)
        assert scored(p, y)["ece_top_label"] == pytest.approx(float(top), abs=1e-6), seed


def test_errors_are_those_of_netcal() -> None:
    """As its version 1.4.0 gave them for the same cases: it needs much that nothing else here does."""
    theirs = pd.read_csv(Path(__file__).with_name("netcal_1_4_0.csv"))
    assert len(theirs) == CASES
    for seed, wanted in theirs.iterrows():
        found = scored(*case(seed))
        for name in ("ece", "mce", "ece_equal_mass"):
            assert found[name] == pytest.approx(wanted[name], abs=1e-6), (seed, name)


@pytest.mark.filterwarnings("ignore")
def test_that_is_what_netcal_gives() -> None:
    netcal = pytest.importorskip("netcal.metrics")
    theirs = pd.read_csv(Path(__file__).with_name("netcal_1_4_0.csv"))
    made = {"ece": netcal.ECE(N_BINS), "mce": netcal.MCE(N_BINS)}
    made["ece_equal_mass"] = netcal.ECE(N_BINS, equal_intervals=False)
    for seed in range(CASES):
        p, y = case(seed)
        for name, metric in made.items():
            assert theirs.loc[seed, name] == pytest.approx(metric.measure(p[:, 1], y), abs=1e-7), (seed, name)


def test_the_rest_is_that_of_the_metrics_and_the_parts_of_the_brier_score_add_up() -> None:
    for seed in range(50):
        p, y = case(seed, 2 + seed % 2)
        found, other = scored(p, y), probability_scores(p, y, 0.5)
        assert set(found) == set(SCORES)
        for name in ("ece", "nll", "brier"):
            assert found[name] == pytest.approx(other[name], rel=1e-9)
        whole = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"]
        assert found["brier"] == pytest.approx(whole, abs=1 / N_BINS / 2)  # what varies within a bin


def test_a_constant_forecast_splits_exactly() -> None:
    y = np.array([1, 0, 0, 0, 1])
    found = scored(np.tile([0.7, 0.3], (5, 1)), y)
    whole = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"]
    assert found["brier"] == pytest.approx(whole)
    assert found["brier_resolution"] == pytest.approx(0, abs=1e-12)
    assert found["brier_reliability"] == pytest.approx(0.01)


def test_sums_of_blocks_add_up_to_any_resample() -> None:
    p, y = case(5)
    blocks = np.arange(len(y)) % 7
    drawn = np.array([2, 0, 1, 1, 0, 3, 0])
    sums = block_sums(p, y, blocks)
    rows = np.concatenate([np.flatnonzero(blocks == b) for b, n in enumerate(drawn) for _ in range(n)])
    again = scored(p[rows], y[rows])
    for name, value in reliability_scores(drawn @ sums).items():
        if name != "ece_equal_mass":  # whose bins are those of the whole
            assert value == pytest.approx(again[name], rel=1e-9), name
