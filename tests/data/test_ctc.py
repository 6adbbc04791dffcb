"""The layout of the Cell Tracking Challenge: lineages, masks, centroids."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapray.data.ctc import centroids, read_lineage, write_ctc
from tapray.data.movies import open_movie
from tapray.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def lineage_file(folder: Path, text: str) -> Path:
    file = folder / "man_track.txt"
    file.write_text(text)
    return file


def lineage_of(tracks: np.ndarray) -> pd.DataFrame:
    points = [(label, np.flatnonzero((tracks == label).any(axis=(1, 2)))) for label in np.unique(tracks)]
    rows = [(int(label), int(t[0]), int(t[-1]), 0) for label, t in points if label]
    return pd.DataFrame(rows, columns=["label", "begin", "end", "parent"], dtype=np.int64)


def test_a_lineage_is_read_by_label(tmp_path: Path) -> None:
    table = read_lineage(lineage_file(tmp_path, "7 4 9 2\n\n2 0 3 0\n  5 5 9 2  \n"))
    assert table.to_dict("list") == {
        "label": [2, 5, 7],
        "begin": [0, 5, 4],
        "end": [3, 9, 9],
        "parent": [0, 2, 2],
    }
    assert set(table.dtypes) == {np.dtype(np.int64)}


def test_an_empty_lineage_has_no_tracks(tmp_path: Path) -> None:
    assert len(read_lineage(lineage_file(tmp_path, ""))) == 0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1 0 3 0\n2 0 3\n", r"man_track\.txt, line 2: not the four whole numbers L B E P: '2 0 3'"),
        ("1 0 3.5 0\n", "line 1: not the four"),
        ("a b c d\n", "line 1: not the four"),
        ("1 0 3 0\n\n1 4 5 0\n", "line 3: this label has a line already"),
        ("0 0 3 0\n", "line 1: a label must be at least 1"),
        ("1 3 2 0\n", "line 1: a track must not end before it begins"),
        ("1 -1 2 0\n", "line 1: a track must not end before it begins"),
        ("1 0 3 0\n2 4 5 9\n", "line 2: the parent has no line"),
        ("1 0 3 0\n2 3 5 1\n", "line 2: the parent must end before its child begins"),
    ],
)
def test_faults_of_lineages_name_file_and_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        read_lineage(lineage_file(tmp_path, text))


def test_a_lineage_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"man_track\.txt: cannot be read"):
        read_lineage(tmp_path / "man_track.txt")


@settings(max_examples=25)
@given(tracks=arrays(np.uint16, st.tuples(st.integers(2, 6), st.integers(2, 9), st.integers(2, 9))))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, tracks: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("ctc") / "TRA"
    lineage = lineage_of(tracks)
    write_ctc(folder, tracks, lineage)
    np.testing.assert_array_equal(open_movie(folder).read(0, len(tracks)), tracks)
    pd.testing.assert_frame_equal(read_lineage(folder / "man_track.txt"), lineage)
    assert [p.name for p in folder.parent.iterdir()] == ["TRA"]


def test_names_are_those_of_the_challenge(tmp_path: Path) -> None:
    write_ctc(tmp_path / "TRA", np.ones((2, 4, 5), np.int32), lineage_of(np.ones((2, 4, 5), np.int32)))
    names = sorted(p.name for p in (tmp_path / "TRA").iterdir())
    assert names == ["man_track.txt", "man_track000.tif", "man_track001.tif"]
    assert (tmp_path / "TRA" / "man_track.txt").read_text() == "1 0 1 0\n"


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "TRA"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    tracks = np.ones((2, 4, 5), np.uint16)
    with pytest.raises(UserError, match="TRA: cannot be written"):
        write_ctc(folder, tracks, lineage_of(tracks))
    assert [p.name for p in tmp_path.rglob("*")] == ["TRA", "mine.txt"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    tracks = np.ones((2, 4, 5), np.uint16)
    with pytest.raises(KeyError):
        write_ctc(tmp_path / "TRA", tracks, pd.DataFrame({"label": [1]}))
    with pytest.raises(ValueError, match="16 bit"):
        write_ctc(tmp_path / "TRA", np.full((2, 4, 5), 70000), lineage_of(tracks))
    assert list(tmp_path.iterdir()) == []


def test_centroids_are_means_of_the_pixels() -> None:
    first = np.zeros((8, 9), np.uint16)
    first[1:3, 2:6] = 4
    second = np.zeros((8, 9), np.uint16)
    second[5, 7] = 4
    second[0:2, 0] = 2
    table = centroids([first, np.zeros_like(first), second])
    expected = pd.DataFrame(
        {
            "id": [4, 2, 4],
            "t": [0, 2, 2],
            "y": [1.5, 0.5, 5.0],
            "x": [3.5, 0.0, 7.0],
            "area": [8.0, 2.0, 1.0],
        }
    )
    pd.testing.assert_frame_equal(table, expected)
    pd.testing.assert_frame_equal(centroids([]), expected[:0])


def test_the_simulated_sequence_has_what_its_notes_say() -> None:
    folder = SHARED / "Fluo-N2DH-SIM+" / "01_GT" / "TRA"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    lineage = read_lineage(folder / "man_track.txt")
    n_children = lineage.loc[lineage["parent"] != 0, "parent"].value_counts()
    assert (len(lineage), (n_children == 2).sum(), (n_children == 1).sum()) == (95, 28, 3)
    masks = open_movie(folder)
    points = centroids(masks.read(t, t + 1)[0] for t in range(masks.shape[0]))
    assert len(points) == 2607
    spans = points.groupby("id")["t"].agg(["min", "max"])
    np.testing.assert_array_equal(spans.to_numpy(), lineage[["begin", "end"]].to_numpy())
