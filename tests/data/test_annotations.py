"""Annotations of every kind as places: events, known negatives and unknown ground."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from tapray.config import Annotation, AnnotationKind, MovieEntry
from tapray.data.annotations import (
    PLACE_COLUMNS,
    READERS,
    Places,
    open_event_masks,
    open_instance_masks,
    read_places,
)
from tapray.data.ctc import write_ctc
from tapray.data.movies import Movie, open_movie
from tapray.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"
SHAPE = (20, 60, 80)
EVENT_HEADER = "movie,t,y,x,class,quality"
DIVISION_HEADER = "parent,t_parent_last,t_children_first,x_parent,y_parent,child1,child2,quality"


@pytest.fixture
def movie(tmp_path: Path) -> Movie:
    return movie_of(tmp_path / "m.tif", SHAPE)


def movie_of(path: Path, shape: tuple[int, int, int]) -> Movie:
    tifffile.imwrite(path, np.zeros(shape, np.uint8), compression="zlib")
    return open_movie(path)


def places(movie: Movie, *annotations: dict[str, Any]) -> Places:
    return read_places(entry(movie, *annotations), movie)


def entry(movie: Movie, *annotations: dict[str, Any]) -> MovieEntry:
    return MovieEntry(
        name="m", path=movie.path, annotations=tuple(Annotation.model_validate(a) for a in annotations)
    )


def csv_of(movie: Movie, *lines: str, name: str = "events.csv") -> Path:
    file = movie.path.parent / name
    file.write_text("\n".join(lines) + "\n")
    return file


def events(movie: Movie, *rows: str, header: str = EVENT_HEADER, **how: Any) -> Places:
    return places(movie, {"kind": "event_table", "path": csv_of(movie, header, *rows), **how})


def masks_of(movie: Movie, *marks: tuple[int, int, slice, slice], name: str = "masks.tif") -> dict[str, Any]:
    """An event mask annotation; a mark is (frame, value, rows, columns)."""
    stack = np.zeros(movie.shape, np.uint8)
    for t, value, rows, columns in marks:
        stack[t, rows, columns] = value
    path = movie.path.parent / name
    tifffile.imwrite(path, stack, compression="zlib")
    return {"kind": "event_masks", "path": path}


def rows_of(found: Places, kind: str) -> list[tuple[Any, ...]]:
    """(label, t, t_end, y, x), rounded, of the places of a kind."""
    table = found.table[found.table["kind"] == kind]
    rows = table[["label", "t", "t_end", "y", "x"]].round(1).itertuples(index=False, name=None)
    return list(rows)


def counts(found: Places) -> tuple[int, int, int]:
    """Numbers of events, negatives and unknown places."""
    kinds = found.table["kind"].value_counts()
    return tuple(int(kinds.get(kind, 0)) for kind in ("event", "negative", "unknown"))  # type: ignore[return-value]


def test_every_kind_has_a_reader() -> None:
    assert set(READERS) == set(AnnotationKind)


def test_no_annotation_says_nothing(movie: Movie) -> None:
    found = places(movie)
    assert tuple(found.table.columns) == PLACE_COLUMNS
    assert (len(found.table), found.exhaustive) == (0, False)
    kinds = ["str", *["int64"] * 4, *["float64"] * 3, "int64", "float64"]
    assert [str(kind) for kind in found.table.dtypes] == kinds
    assert found.table.dtypes.equals(events(movie, "m,5,10,20,death,certain").table.dtypes)


def test_an_annotation_may_be_said_to_be_exhaustive(movie: Movie) -> None:
    assert not events(movie, "m,5,10,20,death,certain").exhaustive
    assert events(movie, "m,5,10,20,death,certain", exhaustive=True).exhaustive
    assert places(movie, masks_of(movie)).exhaustive
    assert not places(movie, {**masks_of(movie), "exhaustive": False}).exhaustive


def test_corrections_have_the_last_word(movie: Movie) -> None:
    told = masks_of(movie, (5, 1, np.s_[8:13], np.s_[18:23]), (12, 1, np.s_[38:43], np.s_[58:63]))
    rows = ["m,5,10,20,none,certain", "m,15,30,70,division,certain", "m,12,40,60,none,review"]
    path = movie.path.parent / "corrected.csv"
    path.write_text("\n".join([EVENT_HEADER, *rows]) + "\n")
    corrected = {"kind": "event_table", "path": path, "overrules": True}
    for found in (places(movie, told, corrected), places(movie, corrected, told)):
        assert [row[1] for row in rows_of(found, "event")] == [12, 15]
        assert [row[1] for row in rows_of(found, "negative")] == [5]
        assert counts(found) == (2, 1, 0)
        assert found.exhaustive
    assert counts(places(movie, told, corrected, corrected))[0] == 2  # of two who agree
    masks = open_event_masks(entry(movie, told, corrected), movie, places(movie, told, corrected))
    assert masks(5, 6).max() == 0
    assert masks(15, 16)[0, 30, 70] == 1
    square = np.zeros(movie.shape[1:], bool)
    square[38:43, 58:63] = True
    assert (masks(12, 13)[0] == square).all()  # of which nothing was said, and no disc


# Merging


def test_a_place_near_an_event_gives_way_to_it(movie: Movie) -> None:
    header = EVENT_HEADER + ",radius"
    near_event = ["m,7,30,52,none,certain,2", "m,2,30,40,none,certain,2", "m,8,30,49,division,doubtful,2"]
    far_away = ["m,9,30,40,none,certain,2", "m,5,30,54,none,certain,2", "m,1,30,40,none,certain,2"]
    found = events(movie, "m,4,30,40,division,certain,13", *near_event, *far_away, header=header)
    assert counts(found) == (1, 3, 1)  # the unknown place at t = 8 is 3 frames after the event's end
    assert [row[1] for row in rows_of(found, "negative")] == [1, 5, 9]


def test_an_event_in_two_annotations_is_one(movie: Movie) -> None:
    rows = ("m,5,10,20,division,certain", "m,5,12,24,division,certain", "m,5,10,21,death,certain")
    first = csv_of(movie, EVENT_HEADER, *rows)
    again = csv_of(
        movie, DIVISION_HEADER, "1,6,7,22,10,2,3,certain", "1,12,13,22,10,2,3,certain", name="d.csv"
    )
    found = places(movie, {"kind": "event_table", "path": first}, {"kind": "division_table", "path": again})
    assert [row[:2] for row in rows_of(found, "event")] == [(1, 5), (2, 5), (1, 5), (1, 12)]
    assert found.table["event_id"].to_list() == [0, 1, 2, 3]


# Tracks with lineage

BODIES: dict[int, tuple[int, int, int, int, int]] = {  # label: first and last frame, y, x, parent
    1: (0, 9, 20, 30, 0),
    2: (10, 19, 20, 24, 1),
    3: (10, 19, 20, 38, 1),
    4: (0, 5, 45, 20, 0),  # one child
    5: (6, 12, 45, 20, 4),  # ends inside
    6: (0, 11, 45, 77, 0),  # leaves over the border
    7: (2, 14, 45, 50, 0),  # two children, but one of them late
    8: (15, 19, 45, 50, 7),
    9: (19, 19, 52, 50, 7),
}


def tracks_of(movie: Movie) -> dict[str, Any]:
    tracks = np.zeros(movie.shape, np.uint16)
    for label, (begin, end, y, x, _) in BODIES.items():
        tracks[begin : end + 1, y - 2 : y + 3, x - 2 : x + 3] = label
    rows = [(label, begin, end, parent) for label, (begin, end, _, _, parent) in BODIES.items()]
    path = movie.path.parent / "TRA"
    write_ctc(path, tracks, pd.DataFrame(rows, columns=["label", "begin", "end", "parent"]))
    return {"kind": "ctc_tracks", "path": path}


def test_tracks_give_divisions_negatives_and_unknown_ends(movie: Movie) -> None:
    found = places(movie, tracks_of(movie))
    assert rows_of(found, "event") == [(1, 9, 10, 20.0, 30.0)]
    assert rows_of(found, "unknown") == [
        (0, 5, 6, 45.0, 20.0),
        (0, 12, 13, 45.0, 20.0),
        (0, 14, 15, 45.0, 50.0),
    ]
    body = np.sqrt(25 / np.pi)
    radii = found.table.set_index("kind")["radius"]
    assert radii["event"] == pytest.approx(8 + body)
    assert radii["unknown"].to_list() == [10.0, 10.0, 10.0]
    np.testing.assert_allclose(radii["negative"], body)
    assert found.exhaustive
    # Track 1 begins with the movie, tracks 2 and 3 end with it, track 7 does neither.
    negatives = found.table[found.table["kind"] == "negative"]
    frames = negatives.groupby(["y", "x"])["t"].apply(list).to_dict()
    assert frames == {
        (20, 30): [1, 2, 3, 4, 5],
        (20, 24): [14, 15, 16, 17, 18],
        (20, 38): [14, 15, 16, 17, 18],
        (45, 20): [1],
        (45, 77): [1, 2, 3, 4, 5, 6, 7],
        (45, 50): [6, 7, 8, 9, 10],
    }


def test_tracks_that_end_inside_are_deaths_where_the_annotation_says_so(movie: Movie) -> None:
    found = places(movie, {**tracks_of(movie), "ends": "death"})
    assert rows_of(found, "event") == [(1, 9, 10, 20.0, 30.0), (2, 12, 13, 45.0, 20.0)]
    assert rows_of(found, "unknown") == [
        (0, 5, 6, 45.0, 20.0),
        (0, 11, 12, 45.0, 77.0),  # near the border: it may have left
        (0, 14, 15, 45.0, 50.0),
    ]


def test_an_annotation_that_may_be_off_claims_more_ground(movie: Movie) -> None:
    rows = ("m,8,30,30,division,certain", "m,13,30,30,none,certain", "m,8,30,56,none,certain")
    exact = events(movie, *rows)
    assert counts(exact) == (1, 2, 0)
    late = events(movie, *rows, frame_tolerance=2)
    assert rows_of(late, "negative") == [(0, 8, 8, 30.0, 56.0)]
    wide = events(movie, *rows, pixel_tolerance=6)
    assert rows_of(wide, "negative") == [(0, 13, 13, 30.0, 30.0)]
    both = events(movie, *rows, frame_tolerance=2, pixel_tolerance=6)
    assert counts(both) == (1, 0, 0)
    assert both.table[["frame_slack", "slack"]].to_numpy().tolist() == [[2, 6.0]]


def test_instance_masks_say_where_cells_are_and_nothing_of_events(movie: Movie) -> None:
    note = {**masks_of(movie, (3, 7, np.s_[5:9], np.s_[5:9])), "kind": "instance_masks"}
    found = places(movie, note)
    assert counts(found) == (0, 0, 0)
    assert not found.exhaustive
    masks = open_instance_masks(entry(movie, note), movie)
    assert masks is not None
    assert masks.read(3, 4).max() == 7
    assert open_instance_masks(entry(movie), movie) is None
    tifffile.imwrite(movie.path.parent / "masks.tif", np.zeros((19, 60, 80), np.uint8))
    with pytest.raises(UserError, match=r"masks\.tif: masks of shape \(19, 60, 80\)"):
        open_instance_masks(entry(movie, note), movie)
    tifffile.imwrite(movie.path.parent / "masks.tif", np.zeros((20, 60, 80), np.float32))
    with pytest.raises(UserError, match="masks are float32, not 8 or 16 bit whole numbers"):
        open_instance_masks(entry(movie, note), movie)


def test_beside_event_masks_tracks_give_negatives_only(movie: Movie) -> None:
    marks = ((9, 1, np.s_[18:23], np.s_[28:33]), (10, 1, np.s_[18:23], np.s_[22:41]))
    found = places(movie, tracks_of(movie), masks_of(movie, *marks))
    assert counts(found) == (1, 28, 0)
    assert found.exhaustive
    masks = {**masks_of(movie, *marks), "exhaustive": False}
    partial = entry(movie, {"kind": "ctc_tracks", "path": movie.path.parent / "TRA"}, masks)
    assert not read_places(partial, movie).exhaustive


def _edit_lineage(edit: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / "man_track.txt").write_text(edit((folder / "man_track.txt").read_text()))


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (_edit_lineage(lambda text: text + "12 0 4 0\n"), "TRA: track 12 is in man_track.txt but in no mask"),
        (
            _edit_lineage(lambda text: text.replace("6 0 11 0\n", "")),
            "TRA: track 6 is in the masks but not in",
        ),
        (
            _edit_lineage(lambda text: text.replace("6 0 11 0", "6 0 12 0")),
            r"track 6 is in frames 0\.\.11, .* 0\.\.12",
        ),
        (
            _edit_lineage(lambda text: text.replace("6 0 11 0", "6 0 11")),
            r"man_track\.txt, line 6: not the four",
        ),
        (lambda folder: (folder / "man_track.txt").unlink(), r"man_track\.txt: cannot be read"),
        (lambda folder: (folder / "man_track019.tif").unlink(), r"TRA: masks of shape \(19, 60, 80\)"),
        (lambda folder: (folder / "man_track007.tif").unlink(), "frames are missing"),
        (lambda folder: (folder / "man_track007.tif").write_bytes(b"II*\0"), r"man_track007\.tif"),
    ],
)
def test_faults_of_tracks(movie: Movie, edit: Callable[[Path], object], match: str) -> None:
    annotation = tracks_of(movie)
    edit(annotation["path"])
    with pytest.raises(UserError, match=match):
        places(movie, annotation)


# Real movies


def real(name: str, *annotations: dict[str, Any]) -> Places:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    return places(open_movie(folder / "01"), *({**a, "path": folder / a["path"]} for a in annotations))


def divisions(*quality: str) -> dict[str, Any]:
    return {"kind": "division_table", "path": "01_GT_partial/divisions.csv", "quality": quality}


POINTS = {"kind": "track_table", "path": "01_GT_partial/tracks.csv"}


@pytest.mark.parametrize(
    ("name", "quality", "expected"),
    [
        ("Fluo-N2DL-HeLa", ["certain"], (28, 3229, 39)),
        ("Fluo-N2DL-HeLa", ["probable"], (27, 3229, 40)),
        ("Fluo-N2DL-HeLa", ["certain", "probable"], (55, 3229, 12)),
        ("PhC-C2DL-PSC", ["certain"], (52, 6164, 29)),
    ],
)
def test_partly_annotated_real_movies(name: str, quality: list[str], expected: tuple[int, int, int]) -> None:
    found = real(name, divisions(*quality), POINTS)
    assert counts(found) == expected
    assert not found.exhaustive


def test_the_simulated_sequence_is_exhaustive() -> None:
    found = real("Fluo-N2DH-SIM+", {"kind": "ctc_tracks", "path": "01_GT/TRA"})
    assert found.exhaustive
    assert (found.table.loc[found.table["kind"] == "event", "label"] == 1).all()
    # Three tracks have one child; the others just end, inside the field.
    assert counts(found) == (28, 2097, 7)
