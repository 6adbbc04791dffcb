"""The calibration table of a synthetic study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from tapray.report.calibration import CALIBRATION_COLUMNS, calibration_table
from tapray.report.reliability import Prediction
from tapray.study.recalibration import METHODS
from tapray.study.reliability import SCORES


def test_calibration_of_every_cell(synthetic: Callable[..., dict[str, Any]]) -> None:
    study = synthetic(inits=("tap", "end_to_end"), heads=("linear",), budgets=(5,), seeds=3, n_test=600)
    table = calibration_table(study["predictions"], np.random.default_rng(0))
    assert list(table.columns) == CALIBRATION_COLUMNS
    assert len(table) == 2 * len(METHODS) * len(SCORES)
    assert (table["low"] <= table["high"]).all()
    own = table.query("init == 'tap'").set_index(["method", "metric"])
    runs = study["results"].query("init == 'tap'")
    for metric in ("ece", "nll", "brier"):
        for method, column in (("none", "before"), ("temperature_bias", "after")):
            assert own.loc[(method, metric), "value"] == pytest.approx(runs[f"{metric}_{column}"].mean())
    change = own.loc[("temperature_bias", "ece")]
    assert change["change"] == pytest.approx(change["value"] - own.loc[("none", "ece"), "value"])
    assert change["change"] < change["change_high"] < 0  # twice too sure: it must fall
    assert (own.loc["none", "change"] == 0).all()
    assert own.loc[("vector", "nll"), "value"] < own.loc[("none", "nll"), "value"]


def calibrated(rng: np.random.Generator, blocks: int = 40, each: int = 10) -> Prediction:
    """A run whose probabilities are right; no two crops are alike."""
    logits = np.stack([np.zeros(blocks * each), rng.normal(-1, 1, blocks * each)], axis=1)
    labels = (rng.random(len(logits)) < expit(logits[:, 1])).astype(np.int64)
    return Prediction(
        labels=labels,
        logits=logits,
        temperature=1.0,
        bias=(0.0, 0.0),
        groups=np.arange(len(labels)),
        val_logits=logits,
        val_labels=labels,
        threshold=0.5,
        blocks=np.arange(len(labels)) // each,
        encoder=0,
    )


@pytest.mark.parametrize(("wrong", "low", "high"), [(3, 0.5, 1), (1, 0, 0.5)])
def test_intervals_keep_to_what_a_score_can_be(wrong: int, low: float, high: float) -> None:
    """Of four blocks some are wholly wrong, all of one bin: the share of them is drawn from 0 to 1."""
    rng = np.random.default_rng(0)
    labels = (np.arange(40) // 10 >= wrong).astype(np.int64)
    logits = np.tile([0.0, 40.0], (40, 1))
    run: Prediction = {**calibrated(rng, 4), "logits": logits, "labels": labels}
    table = calibration_table({("tap", "linear", 5, 0): run}, rng).query("method == 'none'")
    found = table.set_index("metric")[["value", "low", "high"]]
    for metric in ("ece", "ece_equal_mass", "brier"):
        assert found.loc[metric].tolist() == pytest.approx([wrong / 4, low, high])
    percentiles = [0.25, 1] if wrong == 3 else [0, 0.75]
    assert found.loc["mce", ["low", "high"]].tolist() == pytest.approx(percentiles)
    assert found.loc["nll", "high"] > 1


def test_intervals_of_errors_lie_about_their_values() -> None:
    """Each resample's gaps are wider than those of the crops it comes from: percentiles would lie above."""
    rng = np.random.default_rng(0)
    held, middle = 0, list[float]()
    for _ in range(40):
        table = calibration_table({("tap", "linear", 5, 0): calibrated(rng)}, rng)
        row = table.query("method == 'none' and metric == 'ece'").iloc[0]
        held += row["low"] <= row["value"] <= row["high"]
        middle.append((row["low"] + row["high"]) / 2 - row["value"])
    assert held == 40
    assert np.mean(middle) < 0  # towards 0, where the truth lies
