"""tapray inspect: what is said of a movie is what it holds, and the picture is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tapray.console import Reporter
from tapray.data.simulate import write_simulation
from tapray.entries import MovieEntry, Reading
from tapray.errors import UserError
from tapray.inspect import inspect, look
from tests.conftest import TINY, tiny_config


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect") / "sim"
    config = tiny_config(folder, simulate=TINY["simulate"]).simulate
    assert config is not None
    write_simulation(config, folder)
    return folder


def shown(path: Path, out: Path, capsys: pytest.CaptureFixture[str], **said: object) -> str:
    (picture, *_) = inspect(path, Reading.model_validate(said), out, Reporter("rich"))
    with Image.open(picture) as image:
        assert min(image.size) > 300
        assert len(image.getcolors(1 << 24) or []) > 50  # not an empty page
    return capsys.readouterr().out


def test_a_movie_alone(simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(simulated / "field_1.tif", tmp_path, capsys)
    for words in ("TYX 16 x 128 x 128", "uint16", "524,288", "unknown: no annotation", "set pixel_size"):
        assert words in text


def test_a_sequence_of_the_challenge_with_what_lies_beside(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = tifffile.imread(simulated / "field_1.tif")
    (tmp_path / "01").mkdir()
    for t, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / "01" / f"t{t:03d}.tif", frame)
    (tmp_path / "01_GT").mkdir()
    (simulated / "field_1_TRA").rename(tmp_path / "01_GT" / "TRA")
    try:
        text = shown(tmp_path / "01", tmp_path / "pictures", capsys)
    finally:
        (tmp_path / "01_GT" / "TRA").rename(simulated / "field_1_TRA")
    lineage = np.loadtxt(simulated / "field_1_TRA" / "man_track.txt", dtype=int)
    mothers = [label for label, _, _, parent in lineage if (lineage[:, 3] == label).sum() == 2]
    assert f"{len(mothers)} division(s), 0 death(s)" in text
    assert (tmp_path / "pictures" / "01_inspect.png").is_file()


def test_all_movies_of_a_collection(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all.yaml").write_text(
        f"movies: [{{path: '{simulated}/field_?.tif', pixel_size: 0.65, frame_interval: 300,"
        f" annotations: [{{kind: event_masks, path: '{simulated}/{{name}}_events.tif'}}]}}]\n"
    )
    written = inspect(tmp_path / "all.yaml", Reading(), tmp_path, Reporter("rich"))
    assert [path.name for path in written] == [f"field_{i}_inspect.png" for i in (1, 2, 3)]
    text = capsys.readouterr().out
    assert text.count("0.65 um") == text.count("300 s") == text.count("no event") == 3


def test_a_channel_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = np.random.default_rng(0).integers(0, 99, (5, 2, 40, 50)).astype(np.uint8)
    stack[3] = 7
    tifffile.imwrite(tmp_path / "m.tif", stack, photometric="minisblack", metadata={"axes": "TCYX"})
    with pytest.raises(UserError, match="has 2 channels"):
        inspect(tmp_path / "m.tif", Reading(), tmp_path, Reporter("rich"))
    text = shown(tmp_path / "m.tif", tmp_path, capsys, channel=1)
    assert "channel 1 of 2" in text
    assert "1 of 5 looked at" in text
    assert not list(tmp_path.glob(".*"))


def test_frames_are_looked_at_all_over_a_long_movie(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((1000, 8, 9), np.uint8))
    seen = look(MovieEntry(name="m", path=tmp_path / "m.npy"))
    assert (seen.frames[0], seen.frames[-1], len(seen.frames)) == (0, 999, 64)


def test_a_study_that_simulates_has_nothing_to_inspect(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("simulate: {}\n")
    with pytest.raises(UserError, match="lists no movies"):
        inspect(tmp_path / "s.yaml", Reading(), tmp_path, Reporter("rich"))
