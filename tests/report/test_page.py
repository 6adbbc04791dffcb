"""What a page says of made-up results: in words, and in no more of them than these bear out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tapray.config import HeadKind, Init
from tapray.report import further, glossary
from tapray.report.calibration import calibration_table
from tapray.report.calibration_text import before_and_after, methods
from tapray.report.page import _arrow
from tapray.report.tables import summarise

Make = Callable[..., dict[str, Any]]
PICTURE = re.compile(r'!\[[^]]+\]\((\S+)( "[^"]+")?\)')


@pytest.fixture(scope="module")
def study(synthetic: Make) -> dict[str, Any]:
    return synthetic(inits=("tap", "end_to_end"), heads=("linear",), budgets=(5, 10), seeds=3, n_test=300)


def test_every_arm_and_head_of_a_study_is_explained(study: dict[str, Any]) -> None:
    assert set(glossary.ARMS) == set(Init)
    assert set(glossary.HEADS) == set(HeadKind)
    page = glossary.words(study["results"])
    assert re.findall(r"\| (\w+ `\w+`) \|", page) == ["init `tap`", "init `end_to_end`", "head `linear`"]
    for score in ("Average precision (AP)", "F1", "Expected calibration error (ECE)"):
        assert f"\n- {score}: " in page
    assert "division and death" not in page
    assert "division and death" in glossary.words(study["results"].assign(precision_2=0.5))


@pytest.mark.parametrize(("val_events", "chance"), [(9, True), (10, False), (None, False)])
def test_what_calibration_changes_is_told_as_far_as_it_can_be(
    study: dict[str, Any], val_events: int | None, chance: bool
) -> None:
    before = study["results"]["ece_before"]
    change = {("tap", 5): -0.01, ("tap", 10): 0.02, ("end_to_end", 5): 0.002, ("end_to_end", 10): -0.02}
    noise = 0.004 * (study["results"]["seed"] - 1)
    cells = zip(study["results"]["init"], study["results"]["budget"], strict=True)
    results = study["results"].assign(ece_after=before + [change[cell] for cell in cells] + noise)
    page = before_and_after(summarise(results), results, (300, 12), val_events)
    assert "The mean ECE falls in 2 of 4 rows; it rises for `tap` linear at 10 (+0.020 [" in page
    assert (
        "not told apart from none is the change for `end_to_end` linear at 5 (+0.002 [-0.008, +0.012]" in page
    )
    assert ("leave it to chance" in page) == chance
    fallen = results.assign(ece_after=before - 0.01 + noise)
    page = before_and_after(summarise(fallen), fallen, (300, 12), val_events)
    assert "falls in 4 of 4 rows.\n" in page


def test_the_parts_of_the_brier_score_add_up_on_the_page(study: dict[str, Any]) -> None:
    own = {key: run for key, run in study["predictions"].items() if key[0] == "tap"}
    page = methods(calibration_table(own, np.random.default_rng(0)), "tap")
    header, _, *rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        names = ("Brier", "its reliability", "its resolution", "its uncertainty")
        whole, reliability, resolution, uncertainty = (float(cells[name]) for name in names)
        assert whole == pytest.approx(reliability - resolution + uncertainty, abs=0.005)
    assert "these are not drawn anew" in page


def test_what_attribution_finds_has_intervals_that_are_called_too_narrow() -> None:
    scores = {"mass_share": 0.2, "area_share": 0.1, "enrichment": 2.0, "auc": 0.7}
    rows = [
        (part, "tap", "grad_cam", metric, value, 0.9 * value, 1.1 * value)
        for part in ("train", "test")
        for metric, value in scores.items()
    ]
    columns = ["part", "net", "way", "metric", "value", "low", "high"]
    page = further.attribution(pd.DataFrame(rows, columns=columns))
    first = (
        "| pretraining part | grad-cam | tap | 20.00% | 10.00% | 2.000 [1.800, 2.200] | 0.700 [0.630, 0.770]"
    )
    assert first in page
    assert "few blocks, one net of each kind, so they are too narrow" in page


@pytest.mark.parametrize(
    ("init", "whose"), [("tap", "of its encoder"), ("end_to_end", "`end_to_end` has none")]
)
def test_every_picture_has_a_caption(study: dict[str, Any], init: str, whose: str) -> None:
    page = further.errors(pd.DataFrame({"init": [init], "head": ["linear"], "budget": [5]}))
    assert "begin too late or end too early" in page
    assert whose in page
    none = study["results"].assign(init="random_default")
    arrow = _arrow(none, [{"step": 1, "arrow": 0.5}])
    assert "No arm of this study has the pretrained encoder" in arrow
    found = PICTURE.findall(page + arrow)
    assert [name for name, _ in found] == [
        "over_time_linear.png",
        "surroundings_linear.png",
        "mistakes.png",
        "arrow.png",
    ]
    assert all(caption for _, caption in found)
