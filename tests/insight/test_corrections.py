"""What the gallery's table does as an annotation: nothing until a row is given its class and a quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tapray.config import JobConfig
from tapray.configfile import parse_config
from tapray.crops.collect import Inputs
from tapray.insight.mistakes import mistakes

SIZE = 16
# Train is frames 0 to 35, validation 38 to 45, test 50 to 59.
EVENTS = [(5, 20), (15, 40), (25, 20), (40, 40), (52, 20), (55, 44)]
NOTHING = [(t, y) for t in (4, 12, 20, 28, 41, 51, 54, 57) for y in (20, 44)]


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """Frames, and a table of events on their left and of known negatives on their right."""
    frames = np.random.default_rng(0).integers(0, 255, (60, 64, 96)).astype(np.uint8)
    np.save(tmp_path / "m.npy", frames)
    rows = [(t, y, 20, "division", "certain") for t, y in EVENTS]
    rows += [(t, y, 70, "none", "certain") for t, y in NOTHING]
    table = pd.DataFrame(rows, columns=["t", "y", "x", "class", "quality"])
    table.to_csv(tmp_path / "known.csv", index=False)
    return tmp_path / "m.npy"


def inputs_of(movie: Path, exhaustive: bool, **more: Any) -> Inputs:
    known = {"kind": "event_table", "path": str(movie.parent / "known.csv"), "exhaustive": exhaustive}
    corrected = {"kind": "event_table", "path": str(movie.parent / "mistakes.csv"), **more}
    annotations = [known, corrected] if more else [known]
    config: JobConfig = parse_config(
        {
            "movies": [{"name": "m", "path": str(movie), "annotations": annotations}],
            "crops": {"size": SIZE},
            "split": {"kind": "time_block"},
            "pretrain": {"size": SIZE},
            "study": {"budgets": [2], "negatives_per_event": 2},
        }
    )
    return Inputs(config, config.movies)


def listed(inputs: Inputs) -> pd.DataFrame:
    """The gallery's table of a head that calls two negatives an event, and misses an event."""
    index = inputs.index
    test = index[index["split"] == "test"].reset_index(drop=True)
    event = test["label"].to_numpy(float).copy()
    here = np.array([(t, 70 - SIZE // 2) for t in (51, 54)])
    event[(test[["t", "x"]].to_numpy()[:, None] == here).all(axis=-1).any(axis=1) & (test["y"] < 20)] = 0.9
    event[test["event_id"] == test["event_id"].max()] = 0.1
    known = inputs.places["m"].table.assign(movie="m").query("kind == 'event'")
    return mistakes(test, np.stack([1 - event, event], axis=1), 0.5, SIZE, known)


@pytest.mark.parametrize("exhaustive", [False, True])
def test_the_table_changes_nothing_as_it_is_where_it_overrules(movie: Path, exhaustive: bool) -> None:
    before = inputs_of(movie, exhaustive)
    table = listed(before)
    assert set(table["mistake"]) == {"false positive", "false negative"}
    table.to_csv(movie.parent / "mistakes.csv", index=False)
    after = inputs_of(movie, exhaustive, overrules=True)
    pd.testing.assert_frame_equal(after.index, before.index)
    # As one annotation among others it makes its places unknown: the false positives would be gone.
    beside = inputs_of(movie, exhaustive, overrules=False).index
    assert (beside["split"] == "test").sum() < (before.index["split"] == "test").sum()


def test_a_row_that_is_corrected_takes_the_place_of_what_was_there(movie: Path) -> None:
    before = inputs_of(movie, exhaustive=False)
    table = listed(before)
    wrong = table.index[table["mistake"] == "false positive"][0]
    missed = table.index[table["mistake"] == "false negative"][0]
    table.loc[wrong, ["class", "quality"]] = ["division", "certain"]
    table.loc[missed, ["class", "quality"]] = ["none", "certain"]
    table.to_csv(movie.parent / "mistakes.csv", index=False)
    after = inputs_of(movie, exhaustive=False, overrules=True).index
    test = after[after["split"] == "test"].set_index(["t", "y", "x"])["label"]
    for row, label in ((wrong, 1), (missed, 0)):
        assert test.loc[tuple(table.loc[row, ["first", "top", "left"]])] == label
