"""CSV tables of events, divisions and track points."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from tapray.config import Annotation
from tapray.data.movies import Movie, open_movie
from tapray.data.tables import read_division_table, read_event_table, read_track_table
from tapray.errors import UserError

EVENT_HEADER = "movie,t,y,x,class,quality"
DIVISION_HEADER = "parent,t_parent_last,t_children_first,x_parent,y_parent,child1,child2,quality"


@pytest.fixture
def movie(tmp_path: Path) -> Movie:
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((20, 60, 80), np.uint8), compression="zlib")
    return open_movie(tmp_path / "m.tif")


def csv_of(movie: Movie, *lines: str, name: str = "events.csv") -> Path:
    file = movie.path.parent / name
    file.write_text("\n".join(lines) + "\n")
    return file


def annotation(kind: str, path: Path, **how: Any) -> Annotation:
    return Annotation.model_validate({"kind": kind, "path": path, **how})


def events(movie: Movie, *rows: str, header: str = EVENT_HEADER, **how: Any) -> pd.DataFrame:
    return read_event_table(annotation("event_table", csv_of(movie, header, *rows), **how), "m", movie)


def divisions(movie: Movie, *rows: str) -> pd.DataFrame:
    path = csv_of(movie, DIVISION_HEADER, *rows, name="divisions.csv")
    return read_division_table(annotation("division_table", path), "m", movie)


def points(movie: Movie, *rows: str) -> pd.DataFrame:
    path = csv_of(movie, "id,t,x,y", *rows, name="tracks.csv")
    return read_track_table(annotation("track_table", path), "m", movie)


def rows_of(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = ["kind", "label", "t", "t_end", "y", "x", "radius"]
    return list(table[columns].itertuples(index=False, name=None))


def test_an_event_table_gives_all_three_kinds(movie: Movie) -> None:
    table = events(
        movie,
        "m,5,10,20,division,certain,,",
        "other,500,-1,x,what,certain,,",
        " m , 7 ,50,70.5,death,certain,12,9",
        "m,3,50,10,none,certain,8,",
        "m,19,30,40,division,probable,,",
        "",
        "m,9,30,40,none,probable,,",
        header=EVENT_HEADER + ",t_end,radius",
    )
    assert rows_of(table) == [
        ("event", 1, 5, 6, 10.0, 20.0, 16.0),
        ("event", 2, 7, 12, 50.0, 70.5, 9.0),
        ("negative", 0, 3, 3, 50.0, 10.0, 16.0),
        ("unknown", 0, 19, 19, 30.0, 40.0, 16.0),
        ("unknown", 0, 9, 10, 30.0, 40.0, 16.0),
    ]


def test_which_qualities_count_is_the_users_choice(movie: Movie) -> None:
    rows = ("m,5,10,20,division,certain", "m,5,50,70,division,probable", "m,9,50,20,division,late")
    table = events(movie, *rows, quality=["certain", "probable"])
    assert table["kind"].to_list() == ["event", "event", "unknown"]


def test_the_column_movie_may_be_left_out(movie: Movie) -> None:
    table = events(movie, "5,10,20,division,certain", header="t,y,x,class,quality")
    assert rows_of(table) == [("event", 1, 5, 6, 10.0, 20.0, 16.0)]


def test_a_movie_without_rows_is_a_fault_unless_the_table_is_exhaustive(movie: Movie) -> None:
    rows = ("n,1,1,1,death,certain", "M,1,1,1,death,certain")
    with pytest.raises(UserError, match=r"events\.csv: has no row of movie m; it names M, n"):
        events(movie, *rows)
    assert len(events(movie, *rows, exhaustive=True)) == 0


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("m,5,10,20,mitosis,certain,,", "line 3: class is not one of none, event, division, death"),
        ("m,five,10,20,death,certain,,", "line 3: t is not a number"),
        ("m,5.5,10,20,death,certain,,", "line 3: t is not a whole number"),
        ("m,20,10,20,death,certain,,", r"line 3: t is not a frame of the movie \(0 to 19\)"),
        ("m,-1,10,20,death,certain,,", "line 3: t is not a frame"),
        ("m,5,,20,death,certain,,", "line 3: y is not a number"),
        ("m,5,inf,20,death,certain,,", "line 3: y is not a number"),
        ("m,5,60,20,death,certain,,", r"line 3: y is outside the frame \(0 to 59\)"),
        ("m,5,10,80,death,certain,,", r"line 3: x is outside the frame \(0 to 79\)"),
        ("m,5,10,20,death,certain,4,", "line 3: t_end is before t"),
        ("m,5,10,20,death,certain,20,", "line 3: t_end is not a frame"),
        ("m,5,10,20,death,certain,,0", "line 3: radius is not above 0"),
        ("m,5,10,20,death,certain", "line 3: has 6 cells, not 8"),
    ],
)
def test_faults_of_event_tables_name_file_and_line(movie: Movie, row: str, match: str) -> None:
    with pytest.raises(UserError, match=r"events\.csv, " + match):
        events(movie, "m,1,1,1,death,certain,,", row, header=EVENT_HEADER + ",t_end,radius")


def test_faults_of_whole_tables(movie: Movie) -> None:
    with pytest.raises(UserError, match=r"events\.csv: lacks the columns class, quality; it has t, y, x"):
        events(movie, "1,2,3", header="t,y,x")
    with pytest.raises(UserError, match="names a column twice"):
        events(movie, header="t,y,x,class,quality,t")
    with pytest.raises(UserError, match=r"events\.csv: is empty"):
        events(movie, header="")
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_event_table(annotation("event_table", movie.path.parent / "none.csv"), "m", movie)
    with pytest.raises(UserError, match=r"m\.tif: cannot be read"):
        read_event_table(annotation("event_table", movie.path), "m", movie)


def test_a_division_table_gives_events_and_unknown_ground(movie: Movie) -> None:
    table = divisions(movie, "1,4,5,20.5,10,2,3,certain", "4,7,9,60,50,5,,late_dt2")
    assert rows_of(table) == [
        ("event", 1, 4, 5, 10.0, 20.5, 16.0),
        ("unknown", 0, 7, 9, 50.0, 60.0, 16.0),
    ]
    with pytest.raises(UserError, match=r"divisions\.csv, line 2: t_children_first is not after"):
        divisions(movie, "1,5,5,20.5,10,2,3,certain")


def test_steady_points_of_a_track_table_are_negatives(movie: Movie) -> None:
    whole = [f"1,{t},30,{20 + t}" for t in range(12)]  # steady in 4..7, though it begins with the movie
    gap = [f"2,{t},50,50" for t in range(20) if t != 9]  # steady in 4..7 and 11..15
    table = points(movie, *reversed(gap), *whole)
    assert set(table["kind"]) == {"negative"}
    assert table.loc[table["y"] != 50, "t"].to_list() == [4, 5, 6, 7]
    assert sorted(table.loc[table["y"] == 50, "t"]) == [4, 5, 6, 7, 11, 12, 13, 14, 15]
    assert rows_of(table[table["y"] == 24]) == [("negative", 0, 4, 4, 24.0, 30.0, 16.0)]
    with pytest.raises(UserError, match=r"tracks\.csv, line 3: this track has a point in this frame already"):
        points(movie, "1,4,5,5", "1,4,6,6")
