"""What a job says beyond its scores: calibration, errors, attribution, on one page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from tapray.insight.detection import SCORES
from tapray.insight.errors import RATES, SHARES
from tapray.insight.explain import INSETS, WAYS

pytestmark = pytest.mark.slow


def test_calibration_is_of_every_cell(tiny_job: Path) -> None:
    table = pd.read_csv(tiny_job / "calibrate" / "calibration.csv")
    summary = pd.read_csv(tiny_job / "report" / "summary.csv")
    cells = ["init", "head", "budget"]
    assert set(map(tuple, table[cells].to_numpy())) == set(map(tuple, summary[cells].to_numpy()))
    own = table[(table["method"] == "temperature_bias") & (table["metric"] == "ece")].set_index(cells)[
        "value"
    ]
    expected = summary.set_index(cells)["ece_after_mean"]
    np.testing.assert_allclose(own.loc[expected.index], expected, rtol=1e-4)


def test_errors_count_every_test_crop(tiny_job: Path) -> None:
    table = pd.read_csv(tiny_job / "errors" / "errors.csv", keep_default_na=False)
    assert set(table["quantity"]) == {*SHARES, *RATES}
    index = pd.read_parquet(tiny_job / "shard" / "index.parquet")
    test = index[index["split"] == "test"]
    by = table[table["quantity"].isin(["positive", "negative"])].groupby(["head", "dimension", "quantity"])
    counts = by["crops"].apply(lambda own: own.astype(float).sum())
    for (_, dimension, quantity), crops in counts.items():
        wanted = (test["label"] > 0) == (quantity == "positive")
        if dimension != "phase" or quantity == "positive":
            assert crops == wanted.sum(), (dimension, quantity)
    wrong = pd.read_csv(tiny_job / "errors" / "mistakes.csv")
    assert set(wrong["mistake"]) <= {"false positive", "false negative"}  # of two classes
    assert set(wrong["movie"]) <= set(test["movie"])


def test_attribution_is_of_both_nets_on_both_parts(tiny_job: Path) -> None:
    folder = tiny_job / "explain"
    table = pd.read_csv(folder / "attribution.csv")
    wide = table.pivot(index=["part", "way", "net"], columns="metric", values="value")
    nets = ("tap", "random_default", "tap_minus_random_default")
    assert set(wide.index) == {(p, way, net) for p in ("train", "test") for way in WAYS for net in nets}
    assert wide[list(SCORES)].notna().all().all()
    tap, chance, less = (wide.xs(net, level="net") for net in nets)
    assert (tap["mass_share"] / tap["area_share"] - tap["enrichment"]).abs().max() < 1e-3
    assert (tap["auc"] - chance["auc"] - less["auc"]).abs().max() < 1e-3
    assert (tap["area_share"] == chance["area_share"]).all()  # of the same ground
    assert (tap[["mass_share", "auc"]] != chance[["mass_share", "auc"]]).all().all()  # seen by other nets
    assert (tap["rank_correlation_with_random"] < 0.999).all()
    movie = tifffile.imread(folder / "attribution.tif")
    assert movie.dtype == np.uint8
    assert movie.shape[1:] == (128, 128)
    for way in WAYS:
        assert len(pd.read_csv(folder / f"{way}_test.csv")) <= INSETS
        assert (folder / f"{way}_train.png").stat().st_size > 10_000
    with Image.open(folder / "attribution.gif") as film:
        assert getattr(film, "n_frames", 1) == len(movie)


def test_the_page_holds_all_of_it(tiny_job: Path) -> None:
    page = (tiny_job / "report" / "report.html").read_text()
    for title in ("Result", "Calibration", "Errors", "Arrow of time", "Configuration", "Versions"):
        assert f">{title}</h2>" in page, title
    for shown in ("most confident mistakes", "Where the order in time is read", "Other ways to calibrate"):
        assert shown in page
    assert str(tiny_job) not in page  # it may be sent to others
