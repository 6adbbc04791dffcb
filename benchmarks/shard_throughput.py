"""Crop pairs and bytes a second of sharding, beside one plain process and beside a loop over crops.

(i) `plain`: tifffile, numpy and pyarrow in one process write the same tables. (ii) `loop`: crop by crop
with torch slices into a list that is saved at the end; `published`: the same as the published script
does it, which makes all crops of a frame pair anew for every crop that it keeps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch

from benchmarks.common import emit, write_movie
from tapray.config import CropConfig, RayConfig
from tapray.console import Reporter
from tapray.crops import normalise
from tapray.crops.ranges import bytes_per_frame, frame_ranges
from tapray.crops.shards import make_shard, write_shard
from tapray.crops.splits import whole
from tapray.data.movies import open_movie

SIZE = 48


def random_index(frames: int, side: int, crops: int) -> pd.DataFrame:
    """Crops drawn uniformly, `crops` a frame pair, as the published protocol draws them."""
    rng = np.random.default_rng(0)
    n = (frames - 1) * crops
    columns = {"t": np.repeat(np.arange(frames - 1), crops), "delta": 1}
    corner = rng.integers(0, side - SIZE + 1, size=(n, 2))
    return pd.DataFrame({**columns, "y": corner[:, 0], "x": corner[:, 1]}).assign(
        movie="m", crop_id=np.arange(n)
    )


def ours(path: Path, index: pd.DataFrame, config: CropConfig, folder: Path) -> int:
    from tapray.distributed.data import write_shards

    records = write_shards({"m": open_movie(path, "m")}, index, config, folder, Reporter("quiet"))
    return len(records)


def plain(path: Path, index: pd.DataFrame, config: CropConfig, folder: Path, step: int) -> int:
    frames = open_movie(path).shape[0]
    parts = 0
    with tifffile.TiffFile(path) as tif:
        for start in range(0, frames, step):
            stop = min(start + step, frames)
            pixels = tif.asarray(key=range(start, min(stop + config.delta, frames)))
            crops = index.iloc[start * config.crops_per_frame : stop * config.crops_per_frame]
            write_shard(folder, parts, make_shard(pixels, start, stop - start, "m", crops, config))
            parts += 1
    return step


def loop(path: Path, folder: Path, pairs: int, crops: int, again: int) -> int:
    """Crop by crop; each that is kept costs `again` that are made."""
    frames = tifffile.imread(path, key=range(pairs + 1))
    ranges = normalise.frame_ranges(frames, "linear")
    scaled = (frames - ranges[:, :1, None]) / (ranges[:, 1:, None] - ranges[:, :1, None])
    images, generator = torch.as_tensor(scaled.astype(np.float32))[:, None], torch.Generator().manual_seed(0)
    kept: list[Any] = []
    for t in range(pairs):
        both = images[t : t + 2]
        for _ in range(crops):
            for _ in range(again):
                height, width = both.shape[-2:]
                y = int(torch.randint(0, height - SIZE + 1, (1,), generator=generator))
                x = int(torch.randint(0, width - SIZE + 1, (1,), generator=generator))
                crop = both[..., y : y + SIZE, x : x + SIZE]
            kept.append((crop.clone(), torch.tensor(0), (torch.tensor(y), torch.tensor(x), torch.tensor(t))))
    torch.save(kept, folder / "crops.pth")
    return len(kept)


def seconds(work: Callable[[Path], Any], scratch: Path, repeats: int) -> float:
    """Median time of the work, each time into a new folder."""
    taken = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            start = time.perf_counter()
            work(Path(folder))
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def rate(seconds_taken: float, pairs: int) -> dict[str, float]:
    """Crop pairs and megabytes of raw crops a second."""
    megabytes = pairs * 2 * SIZE**2 * 2 / 1e6
    return {
        "seconds": seconds_taken,
        "pairs_per_s": pairs / seconds_taken,
        "mb_per_s": megabytes / seconds_taken,
    }


def rivals(path: Path, index: pd.DataFrame, step: int, scratch: Path, given: argparse.Namespace) -> Any:
    """Rates of the other ways; those that go crop by crop do a part of the crops only."""
    few = 20
    plain_s = seconds(lambda out: plain(path, index, crop_config(given), out, step), scratch, given.repeats)
    loop_s = seconds(lambda out: loop(path, out, 2, given.crops, 1), scratch, given.repeats)
    published_s = seconds(lambda out: loop(path, out, 1, few, given.crops), scratch, given.repeats)
    return {
        "plain": rate(plain_s, len(index)),
        "loop": rate(loop_s, 2 * given.crops),
        "published": rate(published_s, few),
    }


def crop_config(given: argparse.Namespace) -> CropConfig:
    return CropConfig(size=SIZE, draw="uniform", crops_per_frame=given.crops)


def compared(taken: float, cpus: int, pairs: int, others: dict[str, dict[str, float]]) -> dict[str, float]:
    """Our rate on `cpus` cores, over those of the others."""
    ours_rate = rate(taken, pairs)
    speed = {name: ours_rate["pairs_per_s"] / other["pairs_per_s"] for name, other in others.items()}
    over = {f"over_{name}": value for name, value in speed.items()}
    return {**ours_rate, "per_core_over_plain": speed["plain"] / cpus, **over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1024)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--crops", type=int, default=1000, help="crops of a frame pair")
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compression", default="zlib")
    given = parser.parse_args()
    from tapray.distributed.cluster import session

    index = random_index(given.frames, given.side, given.crops)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        path = scratch / "movie.tif"
        compression = None if given.compression == "none" else given.compression
        write_movie(path, given.frames, given.side, given.side, compression)
        config = crop_config(given)
        movie = open_movie(path, "m")
        per_frame = bytes_per_frame(movie, len(index) / given.frames, config)
        step = frame_ranges([whole("m", movie.shape)], [per_frame], config.delta)[0].stop
        figures: dict[str, Any] = {**vars(given), "crop_pairs": len(index)}
        others = rivals(path, index, step, scratch, given)
        figures |= others
        for cpus in given.cpus:
            with session(RayConfig(num_cpus=cpus)):
                ours(path, index[index.t < step], config, scratch / f"warm-{cpus}")  # starts the workers
                taken = seconds(lambda out: ours(path, index, config, out), scratch, given.repeats)
            figures[f"tapray_{cpus}"] = compared(taken, cpus, len(index), others)
    emit("shard_throughput", figures)


if __name__ == "__main__":
    main()
