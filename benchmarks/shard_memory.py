"""Peak memory of sharding, of the whole process tree, against the length of the movie.

Movies of 1, 4 and 16 times as many frames are written to disk and sharded; memory is the proportional
set size of the driver, Ray's own processes and all workers, over that of the same processes at rest.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks.common import emit, write_movie
from benchmarks.shard_throughput import ours
from tapray.config import CropConfig, RayConfig

SIZE = 48


class Peak:
    """The largest memory of this process and its children while the block runs, in bytes."""

    def __enter__(self) -> Peak:
        self.bytes, self._stop = tree_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.bytes = max(self.bytes, tree_bytes())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def tree_bytes() -> int:
    """Proportional set size: memory that processes share is counted once."""
    total = 0
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has ended
            continue
    return total


def scattered(frames: int, side: int, crops: int) -> pd.DataFrame:
    """That many labelled crops over the whole movie, in order of time."""
    rng = np.random.default_rng(0)
    corner = rng.integers(0, side - SIZE + 1, size=(crops, 2))
    t = np.sort(rng.integers(0, frames - 1, size=crops))
    columns = {"movie": "m", "crop_id": np.arange(crops), "t": t, "delta": 1}
    return pd.DataFrame({**columns, "y": corner[:, 0], "x": corner[:, 1]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=75, help="of the shortest movie")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--crops", type=int, default=20_000)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--cpus", type=int, default=2)
    given = parser.parse_args()
    from tapray.distributed.cluster import session

    config, runs = CropConfig(size=SIZE), []
    for times in given.times:
        with tempfile.TemporaryDirectory() as name, session(RayConfig(num_cpus=given.cpus)):
            frames = given.frames * times
            path, folder = Path(name) / "movie.tif", Path(name)
            write_movie(path, frames, given.side, given.side, None)
            index = scattered(frames, given.side, given.crops)
            ours(path, index[index.t < 2], config, folder / "warm")  # workers are up, libraries loaded
            idle = tree_bytes()
            with Peak() as peak:
                ours(path, index, config, folder / "shards")
            run: dict[str, Any] = {"times": times, "frames": frames, "movie_gb": path.stat().st_size / 1e9}
            runs.append(
                {
                    **run,
                    "idle_gb": idle / 1e9,
                    "peak_gb": peak.bytes / 1e9,
                    "above_gb": (peak.bytes - idle) / 1e9,
                }
            )
    peaks = [run["peak_gb"] for run in runs]
    emit("shard_memory", {**vars(given), "runs": runs, "longest_over_shortest": peaks[-1] / peaks[0]})


if __name__ == "__main__":
    main()
