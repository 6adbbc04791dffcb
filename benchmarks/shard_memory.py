"""Peak memory of sharding, of the whole process tree, against the length of the movie.

Movies of 1, 4 and 16 times as many frames are written to disk and sharded; memory is the proportional
set size of the driver, Ray's own processes and all workers, over that of the same processes at rest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

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


def settled_bytes() -> int:
    """Memory at rest: Ray goes on starting and ending processes for some seconds."""
    before = tree_bytes()
    for _ in range(30):
        time.sleep(2)
        now = tree_bytes()
        if abs(now - before) < 0.01 * before:
            break
        before = now
    return now


def run(frames: int, side: int, crops: int, cpus: int) -> dict[str, float]:
    """Gigabytes of one movie, at rest and at the peak of sharding it, with a Ray of its own."""
    from tapray.distributed.cluster import session

    with tempfile.TemporaryDirectory() as name, session(RayConfig(num_cpus=cpus)):
        path, folder, config = Path(name) / "movie.tif", Path(name), CropConfig(size=SIZE)
        write_movie(path, frames, side, side, None)
        index = scattered(frames, side, crops)
        small = Path(name) / "small.tif"
        write_movie(small, 16, 2 * SIZE, 2 * SIZE, None)
        ours(small, scattered(16, 2 * SIZE, 64), config, folder / "warm")  # workers are up, libraries loaded
        idle = settled_bytes()
        with Peak() as peak:
            ours(path, index, config, folder / "shards")
        sizes = {"movie": path.stat().st_size, "idle": idle, "peak": peak.bytes, "above": peak.bytes - idle}
        return {f"{what}_gb": value / 1e9 for what, value in sizes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=75, help="of the shortest movie")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--crops", type=int, default=20_000)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    runs: dict[int, list[dict[str, float]]] = {times: [] for times in given.times}
    for _ in range(given.repeats):
        for times in given.times:  # in turn: what drifts meets every length alike
            runs[times].append(run(given.frames * times, given.side, given.crops, given.cpus))
    medians = [
        {"times": times, **{key: statistics.median(one[key] for one in own) for key in own[0]}}
        for times, own in runs.items()
    ]
    ratio = medians[-1]["peak_gb"] / medians[0]["peak_gb"]
    emit(
        "shard_memory",
        {**vars(given), "medians": medians, "peak_longest_over_shortest": ratio, "runs": runs},
    )


if __name__ == "__main__":
    main()
