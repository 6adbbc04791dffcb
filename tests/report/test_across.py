"""Variants set against each other: as pairs on the same test crops, each for itself on other ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tapray.report.across import inflation_table, variant_differences
from tapray.report.variants import write_comparison
from tapray.study.results import Results

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made(synthetic: Make) -> Callable[..., Results]:
    def make(**given: Any) -> Results:
        study = synthetic(inits=("tap", "end_to_end"), heads=("pooled",), budgets=(5, 10), seeds=4, **given)
        return Results(study["results"], study["trials"], study["predictions"])

    return make


@pytest.fixture(scope="module")
def found(made: Callable[..., Results]) -> dict[str, Results]:
    return {
        "free": made(n_test=600),
        "again": made(n_test=600),
        "leaky": made(n_test=720, split="random_crop"),
    }


@pytest.fixture(scope="module")
def differences(found: dict[str, Results]) -> pd.DataFrame:
    return variant_differences(found, np.random.default_rng(0))


def test_every_pair_of_variants_is_set_against_each_other(differences: pd.DataFrame) -> None:
    pairs = differences.groupby(["variant", "other"]).size()
    named = [("again", "free"), ("leaky", "free"), ("leaky", "again")]
    assert pairs.to_dict() == dict.fromkeys(named, 8)
    expected = differences["mean"] - differences["mean_other"]
    np.testing.assert_allclose(differences["difference"], expected)
    assert (differences["low"] <= differences["difference"] + 1e-9).all()
    assert (differences["high"] >= differences["difference"] - 1e-9).all()


def test_the_same_test_crops_and_seeds_are_pairs(differences: pd.DataFrame) -> None:
    same = differences[differences["variant"] == "again"]
    assert same["paired"].all()
    assert (same[["difference", "low", "high"]] == 0).all().all()  # one study twice, resampled together
    other = differences[differences["variant"] == "leaky"]
    assert not other["paired"].any()
    assert (other["high"] > other["low"])[other["metric"] == "ap"].all()


def test_pairs_are_of_the_seeds_that_both_have(found: dict[str, Results]) -> None:
    free = found["free"]
    fewer = Results(
        free.results[free.results["seed"] < 2],
        free.trials,
        {key: run for key, run in free.predictions.items() if key[3] < 2},
    )
    rows = variant_differences({"free": free, "fewer": fewer}, np.random.default_rng(0))
    assert rows["paired"].all()
    np.testing.assert_allclose(rows[["difference", "low", "high"]], 0, atol=1e-12)


def test_inflation_is_what_a_leak_adds(differences: pd.DataFrame) -> None:
    facts = pd.DataFrame(
        {
            **{"variant": ["free", "leaky"], "crop_size": 48, "area_threshold": [0, 0]},
            **{"is_leaky": [False, True], "prevalence": [0.03, 0.05]},
        }
    )
    table = inflation_table(differences, facts)
    rows = differences.query("variant == 'leaky' and other == 'free'")
    assert len(table) == len(rows) == 8
    np.testing.assert_array_equal(table["inflation"], rows["difference"])
    np.testing.assert_array_equal(table["leaky"], rows["mean"])
    assert set(table["prevalence_leaky"]) == {0.05}
    turned = rows.rename(columns={"variant": "other", "other": "variant"})
    turned = turned.rename(columns={"mean": "mean_other", "mean_other": "mean"})
    turned = turned.assign(difference=-rows["difference"], low=-rows["high"], high=-rows["low"])
    pd.testing.assert_frame_equal(inflation_table(turned, facts), table)
    three = pd.concat([facts, facts.iloc[:1].assign(variant="again")])
    assert inflation_table(differences, three).empty  # which of two is the leaky one's other side?
    assert inflation_table(differences, facts.assign(area_threshold=[0, 40])).empty


def test_the_tables_lie_beside_the_runs(found: dict[str, Results], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in found]
    for folder, own in zip(folders, found.values(), strict=True):
        (folder / "report").mkdir(parents=True)
        own.results.drop(columns="bias").to_csv(folder / "report" / "results.csv", index=False)
        (folder / "config.yaml").write_text(yaml.safe_dump({"crops": {"size": 48, "area_threshold": 0}}))
    target = write_comparison(folders, [*found.values()])
    assert target == tmp_path / "tables"
    published = {"published.csv", "published.md", "published.tex"}
    assert {path.name for path in target.iterdir()} == published | {"differences.csv", "inflation.csv"}
    alone = write_comparison(folders[:1], [found["free"]])
    assert alone == folders[0] / "tables"
    assert {path.name for path in alone.iterdir()} == published
