"""Simulated fluorescence movies of nuclei with complete truth: the data of the default job.

Nuclei move, grow, condense and divide, or shrink, brighten and fall to pieces. Apart from these
events and from growth, everything is statistically the same forwards and backwards in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from tapray.atomic import atomic_folder
from tapray.config import Annotation, AnnotationKind, MovieEntry, Role, SimulateConfig
from tapray.data.ctc import write_ctc
from tapray.data.sim_motion import DIES, DIVIDES, Lives, Paths, grown_radii, move, plan_lives
from tapray.data.sim_render import Camera, draw_frame, make_textures, shape_bodies
from tapray.errors import UserError


@dataclass(frozen=True)
class SimulatedMovie:
    """A field of view and its truth. Label 0 is background."""

    frames: NDArray[np.uint16]  # (T, H, W) counts
    tracks: NDArray[np.uint16]  # (T, H, W) label of the track
    event_masks: NDArray[np.uint8]  # (T, H, W) 1 division, 2 death, in frames t and t_end of an event
    lineage: pd.DataFrame  # label, begin, end, parent (0: none): man_track.txt of the CTC
    events: pd.DataFrame  # movie, t, y, x, class, quality, t_end, radius; pixels and frames


def simulate_movie(config: SimulateConfig, index: int) -> SimulatedMovie:
    """Simulate field of view ``index`` (from 0; its name is ``field_{index + 1}``).

    The same seed and index give the same bytes. An event's t is the last frame with one body and
    t_end = t + 1 the first with two daughters or with fragments; the disk of ``radius`` around
    (y, x), the centre at t, holds them. A mother's track ends at t; a dead nucleus's track ends at
    t_end, its fading fragments are background from then on. Events that would end after the last
    frame are not listed. Raises UserError where the nuclei do not fit into the field.
    """
    rng = np.random.default_rng([config.seed, index])
    lives = plan_lives(config, rng)
    radii = grown_radii(config, lives, rng)
    paths = move(config, lives, radii, rng)
    bodies = shape_bodies(lives, radii, paths, rng)
    textures = make_textures(len(lives.begin), rng)
    camera = Camera(config, rng)
    shape = (config.height, config.width)
    frames = np.empty((config.frames, *shape), dtype=np.uint16)
    tracks = np.empty_like(frames)
    bounds = np.searchsorted(bodies.frame, np.arange(config.frames + 1))
    for t in range(config.frames):
        light, tracks[t] = draw_frame(bodies.take(slice(bounds[t], bounds[t + 1])), textures, shape)
        frames[t] = camera.expose(light, t)
    events, masks = _events(f"field_{index + 1}", lives, paths, tracks)
    return SimulatedMovie(frames, tracks, masks, _lineage(lives, config.frames), events)


def _lineage(lives: Lives, frames: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": np.arange(1, len(lives.begin) + 1),
            "begin": lives.begin,
            "end": lives.last_tracked(frames),
            "parent": lives.parent + 1,
        }
    )


def _events(
    name: str, lives: Lives, paths: Paths, tracks: NDArray[np.uint16]
) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """The table of events and their masks (T, H, W), from the drawn labels."""
    masks = np.zeros(tracks.shape, dtype=np.uint8)
    done = np.flatnonzero(np.isin(lives.fate, (DIVIDES, DIES)) & (lives.event_at + 1 < len(tracks)))
    rows = []
    for nucleus in done[np.argsort(lives.event_at[done], kind="stable")]:
        t, fate = int(lives.event_at[nucleus]), int(lives.fate[nucleus])
        y, x = paths.centre[t, nucleus]
        after = np.flatnonzero(lives.parent == nucleus) if fate == DIVIDES else nucleus
        here, there = tracks[t] == nucleus + 1, np.isin(tracks[t + 1], np.asarray(after) + 1)
        masks[t][here] = masks[t + 1][there] = fate
        far_y, far_x = np.nonzero(there)
        radius = float(np.hypot(far_y - y, far_x - x).max()) + 1
        kind = "division" if fate == DIVIDES else "death"
        rows.append((name, t, y, x, kind, "certain", t + 1, radius))
    columns = ["movie", "t", "y", "x", "class", "quality", "t_end", "radius"]
    return pd.DataFrame(rows, columns=columns), masks


def write_simulation(config: SimulateConfig, folder: Path) -> list[MovieEntry]:
    """Write all movies and their truth into the new ``folder``, whole or not at all.

    Files per movie: ``field_1.tif`` (TYX), ``field_1_events.tif`` (event masks), ``field_1_TRA``
    (CTC track masks and man_track.txt) and ``field_1_events.csv``. The last movies are for testing,
    those before for validation, the others for training. Raises UserError where ``folder``
    holds something already, or as ``simulate_movie`` does.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("exists already", where=folder, todo="remove it or choose another folder")
    with atomic_folder(folder) as beside:
        for index in range(config.n_movies):
            _write_movie(simulate_movie(config, index), beside, f"field_{index + 1}")
    held_out = [Role.VAL] * config.val_movies + [Role.TEST] * config.test_movies
    roles = [Role.TRAIN] * (config.n_movies - len(held_out)) + held_out
    names = [f"field_{index + 1}" for index in range(config.n_movies)]
    return [_entry(folder, name, role) for name, role in zip(names, roles[-len(names) :], strict=True)]


def _entry(folder: Path, name: str, role: Role) -> MovieEntry:
    masks, tracks = folder / f"{name}_events.tif", folder / f"{name}_TRA"
    annotations = (
        Annotation(kind=AnnotationKind.EVENT_MASKS, path=masks, exhaustive=True),
        Annotation(kind=AnnotationKind.CTC_TRACKS, path=tracks, exhaustive=True),
    )
    return MovieEntry(name=name, path=folder / f"{name}.tif", annotations=annotations, role=role)


def _write_movie(movie: SimulatedMovie, folder: Path, name: str) -> None:
    for file, stack in ((f"{name}.tif", movie.frames), (f"{name}_events.tif", movie.event_masks)):
        axes = {"axes": "TYX"}
        tifffile.imwrite(folder / file, stack, compression="zlib", photometric="minisblack", metadata=axes)
    movie.events.to_csv(folder / f"{name}_events.csv", index=False, float_format="%.3f")
    write_ctc(folder / f"{name}_TRA", movie.tracks, movie.lineage)
