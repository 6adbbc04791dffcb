"""500 generated bad inputs: each ends in one line or in a correct result.

Every case is a small annotated movie in one of the formats, with one fault made at random. The whole stage
`shard` is run on it, on one Ray cluster for all. `refused`: a UserError of one line, with no run folder left;
`sharded`: the crops are those of an independent reader of the same file, pixel by pixel. Anything else
(a traceback, half a run folder, other pixels, a minute without an answer) is `wrong`, and listed.
"""

from __future__ import annotations

import argparse
import collections
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import emit
from tapray.configfile import parse_config
from tapray.errors import UserError

SHAPE, SIZE = (24, 64, 64), 16
FRAMES = np.random.default_rng(0).integers(50, 60000, SHAPE).astype(np.uint16)
EVENTS = [(2, 20, 20), (4, 44, 40), (10, 20, 44), (12, 40, 20), (19, 24, 24), (21, 44, 44)]  # t, y, x
Pixels = NDArray[Any]


# ---- whole inputs, one a format


def tiff(path: Path, pixels: Pixels) -> Path:
    tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack", compression="zlib")
    return path.with_suffix(".tif")


def plain_tiff(path: Path, pixels: Pixels) -> Path:
    tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack", metadata={"axes": "TYX"})
    return path.with_suffix(".tif")


def tiff_folder(path: Path, pixels: Pixels) -> Path:
    path.mkdir()
    for t, frame in enumerate(pixels):
        tifffile.imwrite(path / f"t{t:03d}.tif", frame, photometric="minisblack")
    return path


def png_folder(path: Path, pixels: Pixels) -> Path:
    path.mkdir()
    for t, frame in enumerate(pixels):
        Image.fromarray(frame).save(path / f"t{t:03d}.png")
    return path


def npy(path: Path, pixels: Pixels) -> Path:
    np.save(path.with_suffix(".npy"), pixels)
    return path.with_suffix(".npy")


def ome_zarr(path: Path, pixels: Pixels, version: str = "0.5") -> Path:
    group = zarr.open_group(
        str(path.with_suffix(".zarr")), mode="w", zarr_format=2 if version == "0.4" else 3
    )
    axes = [{"name": name, "type": "time" if name == "t" else "space"} for name in "tyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    told: dict[str, Any] = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    }
    group.attrs.update(told if version == "0.4" else {"ome": {"version": version, **told}})
    group.create_array("0", data=pixels, chunks=(4, *pixels.shape[1:]))
    return path.with_suffix(".zarr")


def ome_zarr_04(path: Path, pixels: Pixels) -> Path:
    return ome_zarr(path, pixels, "0.4")


FORMATS = (tiff, plain_tiff, tiff_folder, png_folder, npy, ome_zarr, ome_zarr_04)


def independent(path: Path) -> Pixels:
    """The pixels by the formats' own libraries alone."""
    if path.suffix == ".npy":
        return np.asarray(np.load(path))
    if path.suffix == ".zarr":
        return np.asarray(zarr.open_group(str(path), mode="r")["0"][:])  # type: ignore[index]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".tif", ".png"))
        return np.stack(
            [np.asarray(Image.open(f)) if f.suffix == ".png" else tifffile.imread(f) for f in files]
        )
    return np.asarray(tifffile.imread(path))


# ---- faults of movies: each changes what lies at `path` and returns the path to give


def files_of(path: Path, rng: np.random.Generator) -> Path:
    """One of the files."""
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    return files[int(rng.integers(len(files)))]


def truncated(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    content = file.read_bytes()
    file.write_bytes(content[: int(rng.integers(len(content)))])
    return path


def zero_size(path: Path, rng: np.random.Generator) -> Path:
    files_of(path, rng).write_bytes(b"")
    return path


def wrong_magic(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    content = bytearray(file.read_bytes())
    content[:8] = rng.bytes(8)
    file.write_bytes(content)
    return path


def flipped_bytes(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    content = bytearray(file.read_bytes())
    for at in rng.integers(len(content), size=int(rng.integers(1, 9))):
        content[at] = int(rng.integers(256))
    file.write_bytes(content)
    return path


def damaged_head(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    content = bytearray(file.read_bytes())
    content[int(rng.integers(min(400, len(content))))] = int(rng.integers(256))
    file.write_bytes(content)
    return path


def missing_file(path: Path, rng: np.random.Generator) -> Path:
    files_of(path, rng).unlink()
    return path


def twice_the_number(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    copy = file.with_name(file.name.replace("t0", "t00", 1) if "t0" in file.name else f"copy_{file.name}")
    copy.write_bytes(file.read_bytes())
    return path


def a_folder_for_a_file(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    file.unlink()
    file.mkdir()
    return path


def symlink_loop(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    file.unlink()
    file.symlink_to(file.name)
    return path


def dangling_link(path: Path, rng: np.random.Generator) -> Path:
    file = files_of(path, rng)
    file.unlink()
    file.symlink_to(file.parent / "gone")
    return path


def odd_name(path: Path, rng: np.random.Generator) -> Path:
    """A right input under a name that is hard to handle."""
    stems = ("Zelle ä→细胞", "a b\tc", "x" * 200, "line\nbreak", "[1]*?", "-rf", "%s{0}", "\u202eltr")
    return path.rename(path.with_name(stems[int(rng.integers(len(stems)))] + path.suffix))


def far_too_long(path: Path, rng: np.random.Generator) -> Path:
    parts = (
        ["y" * 250] * int(rng.integers(2, 30)) if rng.random() < 0.5 else ["y" * int(rng.integers(256, 5000))]
    )
    return path.parent.joinpath(*parts)


def not_there(path: Path, rng: np.random.Generator) -> Path:
    return path.with_name("nowhere" + path.suffix)


MOVIE_FAULTS = (
    *(truncated, zero_size, wrong_magic, flipped_bytes, damaged_head, missing_file, twice_the_number),
    *(a_folder_for_a_file, symlink_loop, dangling_link, odd_name, far_too_long, not_there),
)


# ---- faults of pixels: what is written is not a movie of 8 or 16 bit, or only just


def bad_pixels(rng: np.random.Generator) -> Pixels:
    wanted = int(rng.integers(12))
    pixels: Pixels = FRAMES.copy()
    at = tuple(int(rng.integers(n)) for n in SHAPE)
    if wanted < 2:
        pixels = pixels.astype(np.float32)
        pixels[at] = (np.nan, np.inf)[wanted]
    elif wanted < 7:
        pixels = pixels.astype((np.float64, np.int16, np.int64, np.complex64, np.bool_)[wanted - 2])
    elif wanted == 7:
        pixels = pixels[:1]
    elif wanted == 8:
        pixels = pixels[:, : int(rng.integers(1, SIZE))]
    elif wanted == 9:
        pixels[:] = 7  # no contrast at all: a right if useless movie
    elif wanted == 10:
        pixels[1:] = pixels[0]  # duplicate frames: likewise
    else:
        pixels = np.stack([pixels] * 3, axis=1)  # channels
    return pixels


# ---- annotations and their faults


def event_table(folder: Path) -> dict[str, Any]:
    rows = [f"{t},{y},{x},division,certain,{t + 1}" for t, y, x in EVENTS]
    rows += [f"{t},{y},{x},none,certain," for t in range(SHAPE[0] - 1) for y, x in ((10, 32), (54, 32))]
    (folder / "events.csv").write_text("\n".join(["t,y,x,class,quality,t_end", *rows]) + "\n")
    return {"kind": "event_table", "path": str(folder / "events.csv")}


def event_masks(folder: Path) -> dict[str, Any]:
    masks = np.zeros(SHAPE, np.uint8)
    for t, y, x in EVENTS:
        masks[t : t + 2, y - 2 : y + 3, x - 2 : x + 3] = 1
    tifffile.imwrite(folder / "masks.tif", masks, photometric="minisblack")
    return {"kind": "event_masks", "path": str(folder / "masks.tif")}


def ctc_tracks(folder: Path) -> dict[str, Any]:
    tracks, lines, label = np.zeros(SHAPE, np.uint16), [], 0
    for t, y, x in EVENTS:
        spans = ((0, t, 0, 0), (t + 1, SHAPE[0] - 1, label + 1, -4), (t + 1, SHAPE[0] - 1, label + 1, 4))
        for begin, end, parent, shift in spans:
            label += 1
            tracks[begin : end + 1, y - 2 : y + 3, x + shift - 1 : x + shift + 2] = label
            lines.append(f"{label} {begin} {end} {parent}")
    (folder / "TRA").mkdir()
    for t, frame in enumerate(tracks):
        tifffile.imwrite(folder / "TRA" / f"man_track{t:03d}.tif", frame, photometric="minisblack")
    (folder / "TRA" / "man_track.txt").write_text("\n".join(lines) + "\n")
    return {"kind": "ctc_tracks", "path": str(folder / "TRA")}


ANNOTATIONS = (event_table, event_masks, ctc_tracks)


def bad_table(path: Path, rng: np.random.Generator) -> Path:
    lines = path.read_text().splitlines()
    row, cells = (
        int(rng.integers(1, len(lines))),
        ("nan", "inf", "-1", "1e300", "", "x", "9999", "3.5", "\u0663"),
    )
    wanted = int(rng.integers(6))
    if wanted < 3:
        parts = lines[row].split(",")
        parts[int(rng.integers(len(parts)))] = cells[int(rng.integers(len(cells)))]
        lines[row] = ",".join(parts)
    elif wanted == 3:
        lines[row] += ",1"
    elif wanted == 4:
        lines[0] = ",".join(lines[0].split(",")[int(rng.integers(1, 4)) :])
    else:
        path.write_bytes(rng.bytes(200))
        return path
    path.write_text("\n".join(lines) + "\n")
    return path


def bad_masks(path: Path, rng: np.random.Generator) -> Path:
    masks = tifffile.imread(path)
    wanted = int(rng.integers(5))
    if wanted == 0:
        masks[tuple(int(rng.integers(n)) for n in SHAPE)] = int(rng.integers(3, 256))
    elif wanted == 1:
        masks = masks[: int(rng.integers(1, SHAPE[0]))]
    elif wanted == 2:
        masks = masks[:, :, : int(rng.integers(1, SHAPE[2]))]
    elif wanted == 3:
        masks = masks.astype(np.float32)
    else:
        masks[:] = 0
    tifffile.imwrite(path, masks, photometric="minisblack")
    return path


def bad_lineage(path: Path, rng: np.random.Generator) -> Path:
    file = path / "man_track.txt"
    lines = file.read_text().splitlines()
    row = int(rng.integers(len(lines)))
    parts = lines[row].split()
    words = ("99", "-1", "0", "x", "", "1 1", "3.0", "99999999999999999999")
    wanted = int(rng.integers(4))
    if wanted < 2:
        parts[int(rng.integers(4))] = words[int(rng.integers(len(words)))]
        lines[row] = " ".join(parts)
    elif wanted == 2:
        del lines[row]
    else:
        lines.append("77 0 3 0")
    file.write_text("\n".join(lines) + "\n")
    return path


SPECIAL = {event_table: bad_table, event_masks: bad_masks, ctc_tracks: bad_lineage}


# ---- one case


def make_case(number: int, folder: Path) -> tuple[str, dict[str, Any], Path]:
    """What was done, the study, and the movie it names; all from the number alone."""
    rng = np.random.default_rng(number)
    form = FORMATS[int(rng.integers(len(FORMATS)))]
    note = ANNOTATIONS[int(rng.integers(len(ANNOTATIONS)))]
    annotation = note(folder)
    kind = rng.random()
    movie_path = folder / "movie"
    if kind < 0.55:
        fault: Callable[..., Any] = MOVIE_FAULTS[int(rng.integers(len(MOVIE_FAULTS)))]
        path = fault(form(movie_path, FRAMES), rng)
        name = f"{form.__name__}: {fault.__name__}"
    elif kind < 0.7:
        pixels = bad_pixels(rng)
        form = form if form is not png_folder or (pixels.dtype == np.uint16 and pixels.ndim == 3) else npy
        path = form(movie_path, pixels)
        name = f"{form.__name__}: pixels {pixels.dtype} {pixels.shape}"
    else:
        path = form(movie_path, FRAMES)
        special = kind < 0.9
        fault = SPECIAL[note] if special else MOVIE_FAULTS[int(rng.integers(len(MOVIE_FAULTS)))]
        annotation["path"] = str(fault(Path(annotation["path"]), rng))
        name = f"{note.__name__}: {fault.__name__}"
    return name, study_of(path, annotation, folder), path


def study_of(path: Path, annotation: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "out": str(folder / "run"),
        "movies": [{"name": "m", "path": str(path), "annotations": [annotation]}],
        "crops": {"size": SIZE, "jitter": 2, "crops_per_event": 2, "max_negatives": 30, "margin": 1},
        "split": {"kind": "time_block", "fractions": [0.4, 0.3, 0.3]},
        "pretrain": {"preset": "unet-8s2", "size": SIZE, "batch": 8},
        "study": {"budgets": [1], "negatives_per_event": 2},
        "tracking": {"uri": f"sqlite:///{folder.parent}/mlflow.db"},
    }


def expected_pairs(index: pd.DataFrame, frames: Pixels) -> Pixels:
    t = index[["t"]].to_numpy() + index[["delta"]].to_numpy() * np.array([0, 1])
    rows, columns = (index[[name]].to_numpy()[..., None, None] + np.arange(SIZE) for name in ("y", "x"))
    return frames[t[..., None, None], rows.swapaxes(-1, -2), columns]


def check_shards(folder: Path, path: Path) -> str | None:
    """What is wrong with the shards, None if nothing is."""
    index = pd.read_parquet(folder / "index.parquet")
    frames = independent(path)
    parts = [pq.read_table(part) for part in sorted(folder.glob("crops-*.parquet"))]
    pixels = np.concatenate([part["pixels"].combine_chunks().to_numpy_ndarray() for part in parts])
    if frames.shape != SHAPE or len(pixels) != len(index):
        return f"{len(pixels)} crops of {len(index)} from frames {frames.shape}"
    return None if np.array_equal(pixels, expected_pairs(index, frames)) else "other pixels than the file's"


def run_case(number: int, folder: Path, run: Callable[[dict[str, Any]], Path]) -> tuple[str, str, str]:
    """Outcome (refused, sharded or wrong), what was done, and what was said."""
    name, study, path = make_case(number, folder)
    try:
        shards = run(study)
    except UserError as error:
        line = str(error)
        left = sorted(p.name for p in folder.iterdir() if p.name.startswith((".", "run")))
        clean = "\n" not in line and not left
        return ("refused" if clean else "wrong"), name, line if clean else f"{line!r}, left {left}"
    except Exception as error:
        return "wrong", name, f"{type(error).__name__}: {str(error)[:300]}"
    fault = check_shards(shards, path)
    return ("wrong", name, fault) if fault else ("sharded", name, "")


def whole_stage(study: dict[str, Any]) -> Path:
    """The stage `shard` as the command line runs it; a minute without an answer is an error."""
    from tapray.console import Reporter
    from tapray.job import run_job

    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(60)
    try:
        return run_job(parse_config(study), until="shard", reporter=Reporter("quiet")) / "shard"
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise TimeoutError("a minute without an answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    from tapray.config import RayConfig
    from tapray.distributed.cluster import session

    outcomes: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as root, session(RayConfig()):
        for number in range(given.first, given.first + given.cases):
            folder = Path(root) / str(number)
            folder.mkdir()
            outcome, name, said = run_case(number, folder, whole_stage)
            outcomes[outcome].append((name, said))
    faults = collections.Counter(
        name.split(": ")[1].split(" ")[0] for rows in outcomes.values() for name, _ in rows
    )
    emit(
        "bad_inputs",
        {
            **vars(given),
            "seconds": round(time.perf_counter() - start, 1),
            **{outcome: len(outcomes[outcome]) for outcome in ("refused", "sharded", "wrong")},
            "faults": dict(sorted(faults.items())),
            "wrong_cases": outcomes["wrong"],
        },
    )


if __name__ == "__main__":
    main()
