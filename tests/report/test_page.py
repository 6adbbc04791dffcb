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
    """A fall that may be none is called so, as a rise is."""
    summary = summarise(study["results"])
    change = {("tap", 5): -0.01, ("tap", 10): 0.02, ("end_to_end", 5): -0.002, ("end_to_end", 10): -0.02}
    table = pd.DataFrame(
        {
            **{"init": init, "head": "linear", "budget": budget, "method": "temperature_bias"},
            **{"metric": "ece", "change": own, "change_low": own - 0.005, "change_high": own + 0.005},
        }
        for (init, budget), own in change.items()
    )
    page = before_and_after(summary, table, (300, 12), val_events)
    assert "The ECE falls in 2 of 4 rows, in 1 its change is not told apart from none; it rises for" in page
    assert "rises for `tap` linear at 10 (+0.020 [+0.015, +0.025]; before, its ECE was" in page
    assert ("leave it to chance" in page) == chance
    assert "| -0.002 [-0.007, +0.003] |" in page
    fallen = table.assign(change_low=-0.03, change_high=-0.001)
    assert "falls in 4 of 4 rows.\n" in before_and_after(summary, fallen, (300, 12), val_events)
    assert "rows" not in before_and_after(summary, None, (300, 12), val_events)


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
    table = pd.DataFrame(rows, columns=columns)
    page = further.attribution(table)
    of_tap = "grad-cam | tap | 20.00% | 10.00% | 2.000 [1.800, 2.200] | 0.700 [0.630, 0.770]"
    assert f"| seen in pretraining | {of_tap}" in page
    assert f"| test part | {of_tap}" in page
    assert "few blocks, one net of each kind, so they are too narrow" in page
    assert "all other ground counts as free of events" in page
    found = PICTURE.findall(page)
    assert all(caption for _, caption in found)
    files = {name for name, _ in found}
    assert files >= {f"{what}_{p}.png" for what in ("features", "grad_cam") for p in ("train", "test")}
    assert "nothing below is held out" not in page
    seen = further.attribution(table[table["part"] == "train"])
    assert "nothing below is held out" in seen
    assert "test part |" not in seen
    assert not any("_test" in name for name, _ in PICTURE.findall(seen))


@pytest.mark.parametrize(
    ("init", "whose"), [("tap", "of its encoder"), ("end_to_end", "`end_to_end` has none")]
)
def test_every_picture_has_a_caption(study: dict[str, Any], init: str, whose: str) -> None:
    page = further.errors(pd.DataFrame({"init": [init], "head": ["linear"], "budget": [5]}))
    assert "begin too late or end too early" in page
    assert whose in page
    assert "with `overrules: true`" in page
    assert "whatever kind of event it is called" in page
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
