"""Every fault of a user is one line that names the file or the key, and leaves everything as it was."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from tapray.config import SimulateConfig
from tapray.configfile import parse_config
from tapray.data.simulate import write_simulation
from tapray.runfolder import RunFolder
from tests.conftest import TINY
from tests.test_cli import tapray

Study = dict[str, Any]
Break = Callable[[Study, Path], str]


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Entries of three simulated movies; the files are to be read only."""
    folder = tmp_path_factory.mktemp("movies") / "sim"
    entries = write_simulation(SimulateConfig.model_validate(TINY["simulate"]), folder)
    return [entry.model_dump(mode="json") for entry in entries]


@pytest.fixture
def study(movies: list[dict[str, Any]]) -> Study:
    """A study of these movies that would run."""
    return {**TINY, "simulate": None, "movies": json.loads(json.dumps(movies))}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def the_line(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line on stderr of a command that must fail, with status 2."""
    capsys.readouterr()
    assert tapray(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("tapray: ")
    return lines[0]


def rewritten(study: Study, folder: Path, what: str, change: Callable[[Any], Any]) -> str:
    """Lets the first movie, or its masks, be a changed copy of what they are; returns the path."""
    entry = study["movies"][0]
    holder = entry if what == "movie" else entry["annotations"][0]
    path = folder / "changed.tif"
    tifffile.imwrite(path, change(tifffile.imread(holder["path"])), photometric="minisblack")
    holder["path"] = str(path)
    return str(path)


def missing_movie(study: Study, folder: Path) -> str:
    study["movies"][1]["path"] = str(folder / "nowhere.tif")
    return f"{folder}/nowhere.tif: no such file"


def missing_masks(study: Study, folder: Path) -> str:
    study["movies"][1]["annotations"][0]["path"] = str(folder / "nowhere.tif")
    return f"{folder}/nowhere.tif: no such file"


def truncated(study: Study, folder: Path) -> str:
    path = folder / "short.tif"
    whole = Path(study["movies"][0]["path"]).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    study["movies"][0]["path"] = str(path)
    return str(path)


def masks_of_another_shape(study: Study, folder: Path) -> str:
    path = rewritten(study, folder, "masks", lambda masks: masks[:, 1:])
    return f"{path}: masks of shape (16, 127, 128) for a movie of shape (16, 128, 128)"


def masks_of_another_length(study: Study, folder: Path) -> str:
    path = rewritten(study, folder, "masks", lambda masks: masks[:-1])
    return f"{path}: masks of shape (15, 128, 128)"


def one_frame(study: Study, folder: Path) -> str:
    return f"{rewritten(study, folder, 'movie', lambda frames: frames[0])}: holds one frame"


def crops_too_large(study: Study, folder: Path) -> str:
    study["crops"] = {**study["crops"], "size": 129}
    return "crop pair of 129 px"


def class_missing(study: Study, folder: Path) -> str:
    val = next(entry for entry in study["movies"] if entry["role"] == "val")
    path = folder / "empty.tif"
    tifffile.imwrite(path, np.zeros((16, 128, 128), np.uint8), photometric="minisblack")
    val["annotations"][0]["path"] = str(path)
    return "split: the val split holds no events"


def budget_too_large(study: Study, folder: Path) -> str:
    study["study"] = {**study["study"], "budgets": [2, 1000]}
    return "study.budgets: a label budget of 1000 events exceeds"


def negatives_too_many(study: Study, folder: Path) -> str:
    study["study"] = {**study["study"], "negatives_per_event": 5000}
    return "study.negatives_per_event: "


def movie_twice(study: Study, folder: Path) -> str:
    path = folder / "copy.tif"
    path.write_bytes(Path(study["movies"][0]["path"]).read_bytes())
    study["movies"][1]["path"] = str(path)
    return f"{path}: holds the same frames as movie '{study['movies'][0]['name']}'"


def unknown_preset(study: Study, folder: Path) -> str:
    study["pretrain"] = {**study["pretrain"], "preset": "unet-9"}
    return "pretrain.preset: unknown preset 'unet-9'"


def unknown_key(study: Study, folder: Path) -> str:
    study["pretrain"] = {**study["pretrain"], "epoch": 3}
    return "study.yaml: pretrain.epoch: unknown key"


def out_of_another_configuration(study: Study, folder: Path) -> str:
    owner = RunFolder(folder / "runs" / "out")
    owner.claim(parse_config({"name": "other", "simulate": {}}))
    owner.release()
    return f"{folder}/runs/out: is in use by another configuration"


def out_of_another_program(study: Study, folder: Path) -> str:
    (folder / "runs" / "out").mkdir(parents=True)
    (folder / "runs" / "out" / "thesis.tex").write_text("years of work")
    return f"{folder}/runs/out: is not empty and is not a run folder"


FAULTS = [
    *(missing_movie, missing_masks, truncated, masks_of_another_shape, masks_of_another_length, one_frame),
    *(crops_too_large, class_missing, budget_too_large, unknown_key, out_of_another_configuration),
    *(out_of_another_program, negatives_too_many, movie_twice),
    unknown_preset,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_run_that_cannot_be(
    fault: Break, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = fault(study, tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    before = contents(tmp_path)
    assert expected in the_line(capsys, "run", path, "--out", tmp_path / "runs" / "out")
    assert contents(tmp_path) == before


def test_a_process_of_its_own(study: Study, tmp_path: Path) -> None:
    """As a user meets it: nothing but the line comes out, and no traceback."""
    expected = class_missing(study, tmp_path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    argv = [sys.executable, "-m", "tapray", "run", "study.yaml"]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert not (tmp_path / "runs").exists()


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("not a movie")
    (tmp_path / "noise.tif").write_bytes(b"II*\0" + bytes(range(200)))
    (tmp_path / "empty").mkdir()
    for name in ("nowhere.tif", "notes.txt", "noise.tif", "empty"):
        assert str(tmp_path / name) in the_line(capsys, "inspect", tmp_path / name)


def test_simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("mine")
    assert f"{tmp_path}/mine: exists already" in the_line(capsys, "simulate", tmp_path / "mine")
    assert f"{tmp_path}/file: exists already" in the_line(capsys, "simulate", tmp_path / "file")
    assert f"{tmp_path}/file/sim" in the_line(capsys, "simulate", tmp_path / "file" / "sim")
    assert "frames" in the_line(capsys, "simulate", tmp_path / "new", "--frames", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]


def test_predict_without_a_model(
    movies: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    movie, out = movies[0]["path"], tmp_path / "out"
    (tmp_path / "broken").mkdir()
    assert f"{tmp_path}/none: not a readable model" in the_line(
        capsys, "predict", tmp_path / "none", movie, "--out", out
    )
    for text in ("", "[]", "{}", '{"crops": {"size": 3}}'):
        (tmp_path / "broken" / "model.json").write_text(text)
        line = the_line(capsys, "predict", tmp_path / "broken", movie, "--out", out)
        assert f"{tmp_path}/broken: not a readable model" in line
    gone = tmp_path / "gone.tif"
    assert str(gone) in the_line(capsys, "predict", tmp_path / "broken", gone, "--out", out)
    assert not out.exists()


def test_ui_without_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}: no mlflow.db here" in the_line(capsys, "ui", tmp_path)


@pytest.mark.slow
def test_faults_found_by_workers(
    ray_cluster: None, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damaged pixels show only when they are read, by a worker: still one line, and nothing is left."""
    path = tmp_path / "damaged.tif"
    path.write_bytes(Path(study["movies"][0]["path"]).read_bytes())
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[8].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset + 100)
        file.write(bytes(400))
    study["movies"][0]["path"] = str(path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    words = ("run", tmp_path / "study.yaml", "--out", tmp_path / "runs" / "out", "--progress", "quiet")
    assert f"{path}: not a readable TIFF file, or damaged" in the_line(capsys, *words)
    assert not (tmp_path / "runs" / "out").exists()


@pytest.mark.slow
def test_faults_found_after_simulation(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder stays free for the mended configuration."""
    study = {**TINY, "study": {**TINY["study"], "budgets": [1000]}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    words = ("run", tmp_path / "study.yaml", "--out", tmp_path / "runs" / "out", "--progress", "quiet")
    assert "study.budgets" in the_line(capsys, *words)
    assert not (tmp_path / "runs" / "out").exists()


def test_a_fault_leaves_a_finished_run_as_it_was(
    tiny_job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a stage is to be redone and what lies beside it is the user's own."""
    run = tmp_path / "tiny"
    shutil.copytree(tiny_job, run)
    (run / "curated.csv").write_text("years of work")
    study = yaml.safe_load((run / "config.yaml").read_text())
    study["tracking"]["uri"] = "http://127.0.0.1:9"
    path = tmp_path / "away.yaml"
    path.write_text(yaml.safe_dump(study))
    before = contents(run)
    assert "tracking store" in the_line(capsys, "run", path, "--out", run, "--force", "simulate")
    after = contents(run)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert {Path(name).name for name in changed} <= {"config.yaml", "environment.json"}  # the new address


def test_a_command_does_not_force_what_it_does_not_reach(
    tiny_job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tiny_job)
    path = tiny_job / "config.yaml"
    found = the_line(capsys, "shard", path, "--out", tiny_job, "--force", "study")
    assert "--force: stage 'study' is not needed by shard" in found
    assert contents(tiny_job) == before


def test_ui_on_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: cannot be opened" in the_line(capsys, "ui", tmp_path, "--port", port)
