"""Event masks as events, and events as masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import Annotation, MovieEntry
from tapray.data.annotations import open_event_masks, read_places, render_event_masks
from tapray.data.movies import Movie, open_movie
from tapray.data.places import LABELS, Places, make_table
from tapray.errors import UserError

SHAPE = (20, 60, 80)


@pytest.fixture
def movie(tmp_path: Path) -> Movie:
    return movie_of(tmp_path / "m.tif", SHAPE)


def movie_of(path: Path, shape: tuple[int, int, int]) -> Movie:
    tifffile.imwrite(path, np.zeros(shape, np.uint8), compression="zlib")
    return open_movie(path)


def entry(movie: Movie, *annotations: dict[str, Any]) -> MovieEntry:
    return MovieEntry(
        name="m", path=movie.path, annotations=tuple(Annotation.model_validate(a) for a in annotations)
    )


def clicks_of(movie: Movie, *events: tuple[int, int, float, float, str, float]) -> dict[str, Any]:
    """An event table annotation; an event is (t, t_end, y, x, class, radius)."""
    table = pd.DataFrame(events, columns=["t", "t_end", "y", "x", "class", "radius"])
    path = movie.path.parent / "events.csv"
    table.assign(quality="certain").to_csv(path, index=False)
    return {"kind": "event_table", "path": path}


def masks_of(movie: Movie, *marks: tuple[int, int, slice, slice], name: str = "masks.tif") -> dict[str, Any]:
    """An event mask annotation; a mark is (frame, value, rows, columns)."""
    stack = np.zeros(movie.shape, np.uint8)
    for t, value, rows, columns in marks:
        stack[t, rows, columns] = value
    path = movie.path.parent / name
    tifffile.imwrite(path, stack, compression="zlib")
    return {"kind": "event_masks", "path": path}


def test_an_event_is_a_component_of_the_masks(movie: Movie) -> None:
    found = read_places(
        entry(
            movie,
            masks_of(
                movie,
                (4, 1, np.s_[10:15], np.s_[20:27]),  # mother
                (5, 1, np.s_[10:15], np.s_[14:20]),  # daughters, 8 px apart, joined through the mother
                (5, 1, np.s_[10:15], np.s_[28:34]),
                (8, 1, np.s_[40:44], np.s_[10:14]),  # two marks 6 px apart in one frame: one event
                (8, 1, np.s_[40:44], np.s_[20:24]),
                (8, 1, np.s_[40:44], np.s_[31:35]),  # 7 px from those: another
                (8, 2, np.s_[40:44], np.s_[56:60]),  # near, but of another value
                (9, 2, np.s_[40:44], np.s_[56:60]),
                (11, 2, np.s_[40:44], np.s_[56:60]),  # a frame without marks lies between
            ),
        ),
        movie,
    )
    assert set(found.table["kind"]) == {"event"}
    assert found.table["event_id"].to_list() == [0, 1, 2, 3, 4]
    columns = found.table[["label", "t", "t_end", "y", "x"]]
    assert list(columns.itertuples(index=False, name=None)) == [
        (1, 4, 5, 12.0, 23.0),
        (1, 8, 8, 41.5, 16.5),
        (1, 8, 8, 41.5, 32.5),
        (2, 8, 9, 41.5, 57.5),
        (2, 11, 11, 41.5, 57.5),
    ]
    assert found.exhaustive
    assert found.table["radius"][0] == pytest.approx(np.hypot(2, 10) + 0.5)


@settings(max_examples=8)
@given(
    events=st.dictionaries(
        st.integers(0, 5), st.tuples(st.integers(0, 66), st.integers(0, 3), st.sampled_from([1, 2]))
    ),
    radius=st.integers(2, 7),
)
def test_discs_drawn_and_read_again_are_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, events: dict[int, tuple[int, int, int]], radius: int
) -> None:
    folder = tmp_path_factory.mktemp("m")
    movie = movie_of(folder / "m.tif", (70, 60, 100))
    names = {label: name for name, label in LABELS.items()}
    rows = [
        (t, t + n, 15.0 + 30 * (cell // 3), 15.0 + 30 * (cell % 3), names[label], radius)
        for cell, (t, n, label) in events.items()
    ]
    clicked = entry(movie, clicks_of(movie, *rows))
    drawn_masks = open_event_masks(clicked, movie, read_places(clicked, movie))
    tifffile.imwrite(folder / "masks.tif", drawn_masks(0, 70))
    drawn = read_places(entry(movie, {"kind": "event_masks", "path": folder / "masks.tif"}), movie)
    expected = read_places(clicked, movie)
    columns = ["kind", "event_id", "label", "t", "t_end", "y", "x"]
    pd.testing.assert_frame_equal(drawn.table[columns], expected.table[columns])
    np.testing.assert_allclose(drawn.table["radius"], radius + 0.5)


def test_faults_of_event_masks(movie: Movie, tmp_path: Path) -> None:
    short = movie_of(tmp_path / "short.tif", (19, 60, 80))
    with pytest.raises(UserError, match=r"short\.tif: .*\(19, 60, 80\) for a movie of shape \(20, 60, 80\)"):
        read_places(entry(movie, {"kind": "event_masks", "path": short.path}), movie)
    listed = entry(movie, {"kind": "event_masks", "path": short.path})
    with pytest.raises(UserError, match=r"short\.tif: .*\(19, 60, 80\).*m\.tif"):
        open_event_masks(listed, movie, Places(make_table([], 0, 0, 0, 0.0, 0.0, 0.0), True))
    foreign = masks_of(movie, (7, 255, np.s_[3:5], np.s_[3:5]))
    with pytest.raises(UserError, match=r"masks\.tif: frame 7 holds 255; event masks hold 0, 1"):
        read_places(entry(movie, foreign), movie)


def test_annotated_masks_are_given_as_they_are(movie: Movie) -> None:
    masks = masks_of(movie, (4, 1, np.s_[10:15], np.s_[20:27]), (5, 2, np.s_[30:33], np.s_[3:9]))
    clicked = clicks_of(movie, (12, 13, 10, 20, "death", 8))
    listed = entry(movie, clicked, masks)
    read = open_event_masks(listed, movie, read_places(listed, movie))
    np.testing.assert_array_equal(read(3, 7), tifffile.imread(masks["path"])[3:7])
    assert read(0, 20).dtype == np.uint8
    more = masks_of(movie, (12, 2, np.s_[0:2], np.s_[0:2]), name="deaths.tif")
    listed = entry(movie, masks, more)
    both = open_event_masks(listed, movie, read_places(listed, movie))(0, 20)
    assert np.bincount(both.ravel(), minlength=3)[1:].tolist() == [35, 18 + 4]


def test_discs_are_drawn_from_the_table(movie: Movie) -> None:
    kinds = ["event", "event", "negative"]
    table = make_table(kinds, [1, 2, 0], [4, 5, 9], [6, 6, 9], [10, 58.5, 9], [20, 79, 9], [5, 3, 3])
    found = Places(table, exhaustive=False)
    masks = render_event_masks(found, movie.shape)(3, 12)
    y, x = np.mgrid[:60, :80]
    disc = np.hypot(y - 10, x - 20) <= 5
    cut = np.hypot(y - 58.5, x - 79) <= 3
    assert masks.shape == (9, 60, 80)
    np.testing.assert_array_equal(masks[1], disc * 1)
    np.testing.assert_array_equal(masks[2], disc * 1 + cut * 2)
    np.testing.assert_array_equal(masks[3], disc * 1 + cut * 2)
    assert masks[0].max() == masks[4:].max() == 0
    np.testing.assert_array_equal(render_event_masks(found, movie.shape)(6, 7), masks[3:4])
