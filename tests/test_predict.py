"""The product: a trained model finds events in a movie."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from tapray.config import MovieEntry
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.detector import load_model
from tapray.errors import UserError
from tapray.predict import strongest
from tapray.threshold import choose_threshold
from tests.conftest import tiny_config
from tests.test_cli import tapray

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predicted(tiny_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predicted") / "new" / "folder"
    movie = tiny_job / "simulate" / "movies" / "field_3.tif"
    words = ("predict", tiny_job / "model", movie, "--out", out, "--progress", "quiet")
    assert tapray(*words) == 0
    return out


def test_the_probability_movie_covers_the_movie(predicted: Path) -> None:
    probability = tifffile.imread(predicted / "field_3_probability.tif")
    assert (probability.shape, probability.dtype) == ((16, 128, 128), np.float32)
    assert np.isnan(probability[-1]).all()  # no frame follows the last
    assert ((probability[:-1] >= 0) & (probability[:-1] <= 1)).all()
    assert probability[:-1].std() > 0


def test_the_threshold_is_that_of_a_search_of_the_validation_movie(tiny_job: Path) -> None:
    model = tiny_job / "model"
    facts = json.loads((model / "model.json").read_text())
    entries = json.loads((tiny_job / "simulate" / "movies.json").read_text())
    inputs = Inputs(tiny_config(tiny_job), [MovieEntry.model_validate(entry) for entry in entries])
    choice = choose_threshold(load_model(model), inputs, Reporter("quiet"))
    assert choice is not None
    assert choice.as_dict() == facts["validation"]
    assert choice.threshold == facts["threshold"] == load_model(model).threshold
    assert 0 < choice.named <= choice.events


def test_places_up_to_the_border_are_looked_at(predicted: Path) -> None:
    probability = tifffile.imread(predicted / "field_3_probability.tif")[:-1]
    border = probability[:, :16]  # half a crop: no crop inside the frame has its centre here
    assert (np.ptp(border, axis=1).max(axis=1) > 0).all()


def test_the_table_is_that_of_the_probability_movie(predicted: Path) -> None:
    table = pd.read_csv(predicted / "field_3_events.csv")
    columns = ["movie", "t", "y", "x", "class", "quality", "t_end", "radius", "probability"]
    assert list(table.columns) == columns
    assert len(table) > 0
    probability = tifffile.imread(predicted / "field_3_probability.tif")
    at = probability[table["t"], table["y"].astype(int), table["x"].astype(int)]
    np.testing.assert_allclose(at, table["probability"], atol=1e-5)
    assert (table["t_end"] == table["t"] + 1).all()
    assert set(table["class"]) == {"event"}  # the job told events from none


def test_again_gives_the_same_bytes(predicted: Path, tiny_job: Path, tmp_path: Path) -> None:
    movie = tiny_job / "simulate" / "movies" / "field_3.tif"
    assert tapray("predict", tiny_job / "model", movie, "--out", tmp_path, "--progress", "quiet") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in predicted.iterdir())
    for path in predicted.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_movie_too_small_is_one_line(
    tiny_job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    movie, out = tmp_path / "small.tif", tmp_path / "out"
    tifffile.imwrite(movie, np.zeros((5, 20, 200), np.uint8), photometric="minisblack")
    assert tapray("predict", tiny_job / "model", movie, "--out", out) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"{movie}: 5 frames of 20 x 200 px cannot hold a crop pair of 32 px" in lines[0]
    assert not out.exists()


def test_a_movie_that_is_damaged_half_way_leaves_nothing(
    tiny_job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    movie, out = tmp_path / "damaged.tif", tmp_path / "new" / "out"
    frames = np.random.default_rng(0).integers(0, 255, (5, 64, 64), np.uint8)
    tifffile.imwrite(movie, frames, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(movie) as tif:
        place = tif.pages[3].dataoffsets[0]
    data = movie.read_bytes()
    movie.write_bytes(data[:place] + bytes(40) + data[place + 40 :])
    assert tapray("predict", tiny_job / "model", movie, "--out", out, "--progress", "quiet") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(movie) in lines[0]
    assert not out.exists()


def test_an_event_whose_probabilities_round_to_one_is_found_once_in_its_middle() -> None:
    t, y, x = np.indices((12, 9, 9))
    none = np.full((12, 9, 9), 0.999)
    for at in ((3, 4, 4), (9, 1, 7)):
        far = np.sqrt((t - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2)
        none = np.where(far < 2.5, 10.0 ** (4 * far - 20), none)  # 1 - none is 1 in float32
    probabilities = np.stack([none, 1 - none], axis=-1).astype(np.float32)
    assert (probabilities[..., 1] == 1).sum() > 20
    assert strongest(probabilities, 0.5, 2, 2).tolist() == [[3, 4, 4], [9, 1, 7]]
    assert strongest(np.full((3, 4, 4, 2), [1, 0], np.float32), 0.5, 2, 2).shape == (0, 3)


def test_a_folder_in_the_place_of_a_file_is_left_alone(
    tiny_job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "field_3_events.csv").mkdir()
    movie = tiny_job / "simulate" / "movies" / "field_3.tif"
    assert tapray("predict", tiny_job / "model", movie, "--out", tmp_path) == 2
    assert f"{tmp_path}/field_3_events.csv: is a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["field_3_events.csv"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", float("nan")),
        ("threshold", 2),
        ("temperature", 0),
        ("bias", [0.0]),
        ("bias", ["a", "b"]),
    ],
)
def test_a_model_with_impossible_numbers_is_refused(
    tiny_job: Path, tmp_path: Path, key: str, value: object
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_job / "model", folder)
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**facts, key: value}))
    with pytest.raises(UserError, match="not a readable model"):
        load_model(folder)
