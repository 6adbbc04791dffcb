"""What the gallery takes from movies, masks and nets for a mistake."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tapray import insights
from tapray.config import CropConfig, JobConfig, MovieEntry
from tapray.crops.collect import Inputs
from tapray.model.tap import TapNet
from tests.insight.conftest import Noise

EVENTS = pd.DataFrame({"t": [2, 7], "t_end": [3, 8], "y": [30.0, 30], "x": [40.0, 40], "radius": [5.0, 5]})


def test_a_mistake_is_cut_out_with_all_that_lies_there(noise: Noise, net: TapNet) -> None:
    frames, movie = noise(10, 64, 96)
    job: Any = SimpleNamespace(
        config=SimpleNamespace(crops=CropConfig(size=16)), inputs=SimpleNamespace(movies={"m": movie})
    )
    row = pd.Series({"movie": "m", "first": 2, "last": 3, "top": 20, "left": 34})
    numbered = np.arange(64 * 96).reshape(64, 96)
    found = insights._close(job, net, row, lambda t: numbered + t, EVENTS)
    top, left = 28 - 16, 42 - 16  # of the window of twice the crop's side
    np.testing.assert_array_equal(found.outlines[0], numbered[top : top + 32, left : left + 32] + 2)
    assert found.frames.shape == (2, 32, 32)
    cut = frames[3, top : top + 32, left : left + 32].astype(float)
    assert np.corrcoef(found.frames[1].ravel(), cut.ravel())[0, 1] > 0.99
    assert (found.top, found.left, found.size) == (20 - top, 34 - left, 16)
    shown = found.events[["y", "x"]].to_numpy().tolist()
    assert shown == [[30 - top, 40 - left]]  # that of frame 7 is not
    assert set(found.ways) == {"evidence", "Grad-CAM"}
    assert {own.shape for own in found.ways.values()} == {(32, 32)}
    assert not np.allclose(*found.ways.values())


def test_small_crops_are_shown_at_their_size(noise: Noise, net: TapNet) -> None:
    _, movie = noise(10, 64, 96)
    size = net.backbone.divisor - 4  # a window that pools evenly would be less than twice as large
    job: Any = SimpleNamespace(
        config=SimpleNamespace(crops=CropConfig(size=size)), inputs=SimpleNamespace(movies={"m": movie})
    )
    row = pd.Series({"movie": "m", "first": 2, "last": 3, "top": 20, "left": 34})
    found = insights._close(job, net, row, lambda t: np.zeros((64, 96), int), EVENTS)
    assert found.frames.shape == (2, 2 * size, 2 * size)
    assert {own.shape for own in found.ways.values()} == {(2 * size, 2 * size)}


def test_outlines_are_of_masks_and_not_of_clicks(noise: Noise, tmp_path: Path) -> None:
    _, movie = noise(10, 64, 96)
    (tmp_path / "clicks.csv").write_text("t,y,x,class,quality\n4,30,40,division,certain\n")
    marks = np.zeros((10, 64, 96), np.uint8)
    marks[4:6, 28:33, 38:43] = 1
    np.save(tmp_path / "marks.npy", marks)
    clicks = {"kind": "event_table", "path": tmp_path / "clicks.csv"}
    masks = {"kind": "event_masks", "path": tmp_path / "marks.npy"}
    for told, wanted in (([clicks], 0), ([clicks, masks], 25)):
        entry = MovieEntry.model_validate({"name": "m", "path": movie.path, "annotations": told})
        found = Inputs(JobConfig(movies=(entry,)), [entry]).outlines(entry)(4)
        assert found.shape == (64, 96)
        assert (found > 0).sum() == wanted


@pytest.mark.parametrize(
    ("init", "folder", "whose"),
    [
        ("tap", "model-2", "of the model's encoder"),
        ("fine_tune", "model-2", "of the model's encoder"),
        ("end_to_end", "model", "(not the model's)"),
    ],
)
def test_the_gallery_looks_through_the_models_own_net_where_it_has_one(
    init: str, folder: str, whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    titles: list[str] = []
    monkeypatch.setattr("tapray.model.weights.load_tap", loaded.append)
    monkeypatch.setattr("tapray.report.errors.gallery", lambda *given: titles.append(given[2]))
    job: Any = SimpleNamespace(model=tmp_path / "model", inputs=SimpleNamespace(entries=[]))
    none = pd.DataFrame(columns=["movie"])
    insights._gallery(job, none, none, {"init": init, "encoder": 2}, tmp_path / "a.png")
    assert loaded == [tmp_path / folder]
    assert whose in titles[0]
