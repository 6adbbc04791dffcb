"""The simulator: truth that agrees with itself and files that read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import AnnotationKind, Role, SimulateConfig
from tapray.data.sim_render import OFFSET
from tapray.data.simulate import SimulatedMovie, simulate_movie, write_simulation
from tapray.errors import UserError

BUSY = SimulateConfig(n_nuclei=20, division_rate=0.05, death_rate=0.02, frames=24, height=160, width=140)
TWO = SimulateConfig(frames=2, height=64, width=64, n_nuclei=2)


@pytest.fixture(scope="module")
def busy() -> SimulatedMovie:
    return simulate_movie(BUSY, 0)


def test_shapes_and_kinds(busy: SimulatedMovie) -> None:
    for stack, kind in ((busy.frames, np.uint16), (busy.tracks, np.uint16), (busy.event_masks, np.uint8)):
        assert stack.shape == (24, 160, 140)
        assert stack.dtype == kind
    assert list(busy.lineage) == ["label", "begin", "end", "parent"]
    assert list(busy.events) == ["movie", "t", "y", "x", "class", "quality", "t_end", "radius"]
    assert (busy.lineage.begin == 0).sum() == BUSY.n_nuclei
    assert set(busy.events["class"]) == {"division", "death"}
    assert set(busy.events.movie) == {"field_1"}


def test_same_seed_same_bytes(busy: SimulatedMovie) -> None:
    again = simulate_movie(BUSY, 0)
    assert again.frames.tobytes() == busy.frames.tobytes()
    assert again.tracks.tobytes() == busy.tracks.tobytes()
    pd.testing.assert_frame_equal(again.events, busy.events)
    first = simulate_movie(TWO, 0).frames
    assert not np.array_equal(simulate_movie(TWO, 1).frames, first)
    assert not np.array_equal(simulate_movie(TWO.model_copy(update={"seed": 1}), 0).frames, first)


@settings(max_examples=8)
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(2, 24),
    radius=st.floats(3, 9),
    division=st.sampled_from([0.0, 0.03, 0.3]),
    death=st.sampled_from([0.0, 0.02, 0.3]),
    growth=st.booleans(),
)
def test_truth_agrees_with_itself(
    seed: int, frames: int, radius: float, division: float, death: float, growth: bool
) -> None:
    config = SimulateConfig(
        seed=seed,
        frames=frames,
        radius=radius,
        division_rate=division,
        death_rate=death,
        growth=growth,
        n_nuclei=5,
        height=120,
        width=96,
    )
    movie = simulate_movie(config, 0)
    labels_by_frame = [set(np.unique(frame)) - {0} for frame in movie.tracks]
    for t, seen in enumerate(labels_by_frame):
        here = movie.lineage[(movie.lineage.begin <= t) & (t <= movie.lineage.end)]
        assert seen == set(here.label)
    ends = movie.lineage.set_index("label").end
    daughters = movie.lineage[movie.lineage.parent > 0]
    assert (daughters.parent.value_counts() == 2).all()
    assert (daughters.begin.to_numpy() == ends[daughters.parent].to_numpy() + 1).all()
    divisions = movie.events[movie.events["class"] == "division"]
    assert sorted(divisions.t) == sorted(ends[daughters.parent.unique()])
    assert (movie.events.t_end == movie.events.t + 1).all()
    assert movie.events.t_end.max() < frames or movie.events.empty
    _check_masks(movie)


def _check_masks(movie: SimulatedMovie) -> None:
    """Every event pixel lies in the disk of an event of its kind, and every event has pixels."""
    rows, columns = np.indices(movie.tracks.shape[1:])
    left = movie.event_masks.copy()
    table = movie.events
    for t, y, x, kind, radius in zip(table.t, table.y, table.x, table["class"], table.radius, strict=True):
        disk = (rows - y) ** 2 + (columns - x) ** 2 <= (radius + 12) ** 2  # at t the mother is larger
        for frame in (t, t + 1):
            value = {"division": 1, "death": 2}[kind]
            assert (movie.event_masks[frame][disk] == value).any()
            left[frame][disk & (left[frame] == value)] = 0
    assert not left.any()


def test_the_disk_of_a_division_holds_both_daughters(busy: SimulatedMovie) -> None:
    rows, columns = np.indices(busy.tracks.shape[1:])
    births = busy.lineage[busy.lineage.parent > 0].groupby("parent").agg({"begin": "first", "label": list})
    divisions = busy.events[busy.events["class"] == "division"]
    assert len(births) == len(divisions) > 5
    for t_end, pair in zip(births.begin, births.label, strict=True):
        daughters = np.isin(busy.tracks[t_end], pair)
        holds = [
            ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)[daughters].all()
            for y, x, radius in divisions[divisions.t_end == t_end][["y", "x", "radius"]].to_numpy()
        ]
        assert any(holds)
        assert set(np.unique(busy.event_masks[t_end][daughters])) == {1}


def test_nuclei_condense_before_they_divide_and_fall_to_pieces_when_they_die() -> None:
    movie = simulate_movie(SimulateConfig(n_nuclei=16, division_rate=0.03, death_rate=0.03), 1)
    area: dict[str, list[float]] = {"division": [], "death": []}
    light: dict[str, list[float]] = {"division": [], "death": []}
    for event in movie.events[movie.events.t > 6].to_dict("records"):
        label = movie.tracks[event["t"]][round(event["y"]) % 256, round(event["x"]) % 256]
        before, now = movie.tracks[event["t"] - 6] == label, movie.tracks[event["t"]] == label
        if label == 0 or not before.any():  # born since, or hidden by a neighbour
            continue
        area[event["class"]].append(now.sum() / before.sum())
        shown = movie.frames[event["t"]][now].mean() - OFFSET
        light[event["class"]].append(shown / (movie.frames[event["t"] - 6][before].mean() - OFFSET))
    for name in area:
        assert len(area[name]) >= 5
        assert np.median(area[name]) < 0.5
        assert np.median(light[name]) > 1.3


def test_nuclei_stand_out() -> None:
    movie = simulate_movie(SimulateConfig(frames=2), 0)
    frame, inside = movie.frames[0].astype(float) - OFFSET, movie.tracks[0] > 0
    assert np.median(frame[inside]) > 4 * np.median(frame[~inside])


def test_written_files_read_back(tmp_path: Path) -> None:
    config = BUSY.model_copy(update={"n_movies": 3, "frames": 9})
    folder = tmp_path / "deep" / "movies"
    entries = write_simulation(config, folder)
    assert [entry.name for entry in entries] == ["field_1", "field_2", "field_3"]
    assert [entry.role for entry in entries] == [Role.TRAIN, Role.VAL, Role.TEST]
    movie = simulate_movie(config, 1)
    entry = entries[1]
    with tifffile.TiffFile(entry.path) as file:
        assert file.series[0].axes == "TYX"
        np.testing.assert_array_equal(file.asarray(), movie.frames)
    masks, tracks = entry.annotations
    assert (masks.kind, tracks.kind) == (AnnotationKind.EVENT_MASKS, AnnotationKind.CTC_TRACKS)
    assert masks.exhaustive is True
    assert tracks.exhaustive is True
    np.testing.assert_array_equal(tifffile.imread(masks.path), movie.event_masks)
    np.testing.assert_array_equal(tifffile.imread(tracks.path / "man_track007.tif"), movie.tracks[7])
    assert len(list(tracks.path.glob("*.tif"))) == 9
    np.testing.assert_array_equal(np.loadtxt(tracks.path / "man_track.txt", dtype=int), movie.lineage)
    events = pd.read_csv(folder / "field_2_events.csv")
    pd.testing.assert_frame_equal(events, movie.events, atol=1e-3, check_dtype=False)
    assert [path.name for path in folder.parent.iterdir()] == ["movies"]


@pytest.mark.parametrize(
    ("given", "roles"),
    [
        ({"n_movies": 1}, ["test"]),
        ({"n_movies": 2}, ["val", "test"]),
        ({"n_movies": 4, "test_movies": 2}, ["train", "val", "test", "test"]),
        ({"n_movies": 3, "val_movies": 2}, ["val", "val", "test"]),
    ],
)
def test_roles_of_movies(tmp_path: Path, given: dict[str, int], roles: list[str]) -> None:
    config = TWO.model_copy(update=given)
    assert [entry.role for entry in write_simulation(config, tmp_path / "out")] == roles


def test_nothing_is_overwritten_or_left_half_written(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match=r"out: exists already; remove it"):
        write_simulation(BUSY, folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    crowd = SimulateConfig(height=64, width=64, n_nuclei=50)
    with pytest.raises(UserError, match=r"too many for a field of 64 x 64"):
        write_simulation(crowd, tmp_path / "crowd")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
