"""The calibration table of a synthetic study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tapray.report.calibration import CALIBRATION_COLUMNS, calibration_table
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
