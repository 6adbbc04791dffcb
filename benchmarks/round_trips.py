"""Round trips: real movies through every format, CTC tracks in and out; every pixel and every shard the same.

    python -m benchmarks.round_trips ../shared/data

The folder holds sequences of the Cell Tracking Challenge (Maška 2023, Ulman 2017). Each movie is written
anew in every format and read back; `pixels` and `shards` say whether all frames, and the bytes of the crop
shards cut from them, are those of the original.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from benchmarks.bad_inputs import npy, ome_zarr, ome_zarr_04, png_folder, tiff, tiff_folder
from benchmarks.common import emit
from benchmarks.shard_memory import SIZE, scattered
from tapray.config import CropConfig
from tapray.crops.shards import make_shard, write_shard
from tapray.data.annotations import read_places
from tapray.data.ctc import read_lineage, write_ctc
from tapray.data.movies import Movie, open_movie
from tapray.entries import Annotation, AnnotationKind, MovieEntry

SEQUENCES = ("Fluo-N2DL-HeLa/01", "PhC-C2DL-PSC/01", "Fluo-N2DH-SIM+/01")
CROPS = 2000


def big_tiff(path: Path, pixels: NDArray[Any]) -> Path:
    tifffile.imwrite(
        path.with_suffix(".btf"), pixels, bigtiff=True, photometric="minisblack", tile=(256, 256)
    )
    return path.with_suffix(".btf")


def ome_tiff(path: Path, pixels: NDArray[Any]) -> Path:
    target = path.with_suffix(".ome.tif")
    tifffile.imwrite(target, pixels, ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    return target


def imagej(path: Path, pixels: NDArray[Any]) -> Path:
    target = path.with_name("imagej.tif")
    tifffile.imwrite(target, pixels, imagej=True, metadata={"axes": "TYX"})
    return target


FORMATS: tuple[Callable[[Path, NDArray[Any]], Path], ...] = (
    *(tiff, big_tiff, ome_tiff, imagej, tiff_folder, png_folder, npy, ome_zarr_04, ome_zarr),
)


def shard_digest(movie: Movie, folder: Path) -> str:
    """SHA-256 of the shards of crops scattered over the movie."""
    frames, height, width = movie.shape
    index, config = scattered(frames, min(height, width), CROPS), CropConfig(size=SIZE)
    digest = hashlib.sha256()
    for part, start in enumerate(range(0, frames, 16)):
        stop = min(start + 16, frames)
        crops = index[(index.t >= start) & (index.t < stop)]
        pixels = movie.read(start, min(stop + 1, frames))
        write_shard(folder, part, make_shard(pixels, start, stop - start, "m", crops, config))
    for file in sorted(folder.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def through_formats(original: Path, scratch: Path) -> dict[str, Any]:
    files = sorted(original.glob("*.tif"))
    pixels = np.stack([tifffile.imread(file) for file in files])
    source = open_movie(original, "m")
    wanted = shard_digest(source, scratch / "shards")
    found: dict[str, Any] = {"shape": pixels.shape, "dtype": str(pixels.dtype)}
    found["read_as_is"] = bool(np.array_equal(source.read(0, len(pixels)), pixels))
    for write in FORMATS:
        folder = scratch / write.__name__
        folder.mkdir()
        movie = open_movie(write(folder / "m", pixels), "m")
        start = time.perf_counter()
        same = all(np.array_equal(movie.read(t, t + 1)[0], frame) for t, frame in enumerate(pixels))
        seconds = time.perf_counter() - start
        shards = shard_digest(movie, folder / "shards") == wanted
        rate = round(pixels.nbytes / 1e6 / seconds)
        found[write.__name__] = {"pixels": same, "shards": shards, "mb_per_s_frame_by_frame": rate}
    return found


def through_ctc(sequence: Path, tracks: Path, scratch: Path) -> dict[str, Any]:
    """Track masks and lineage read, written, read again; and the places they give."""
    masks, lineage = open_movie(tracks), read_lineage(tracks / "man_track.txt")
    labels = masks.read(0, masks.shape[0])
    write_ctc(scratch / "TRA", labels, lineage)
    again = open_movie(scratch / "TRA")
    tables = [
        read_places(
            MovieEntry(
                name="m",
                path=sequence,
                annotations=(Annotation(kind=AnnotationKind.CTC_TRACKS, path=folder),),
            ),
            open_movie(sequence, "m"),
        ).table
        for folder in (tracks, scratch / "TRA")
    ]
    return {
        "masks": bool(np.array_equal(again.read(0, again.shape[0]), labels)),
        "lineage": read_lineage(scratch / "TRA" / "man_track.txt").equals(lineage),
        "places": bool(pd.DataFrame.equals(*tables)),
        "divisions": int((tables[0]["kind"] == "event").sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder of the sequences")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in SEQUENCES:
        with tempfile.TemporaryDirectory() as scratch:
            figures[name] = through_formats(given.data / name, Path(scratch))
    sequence = given.data / "Fluo-N2DH-SIM+" / "01"
    with tempfile.TemporaryDirectory() as scratch:
        figures["ctc"] = through_ctc(sequence, sequence.with_name("01_GT") / "TRA", Path(scratch))
    emit("round_trips", figures)


if __name__ == "__main__":
    main()
