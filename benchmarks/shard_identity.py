"""The same shards, byte for byte, from 1 and from 4 tasks at a time, and after kill -9 half way.

The killed run is a process of its own with its own Ray; it is killed, with all its children, as soon as half
of the parts are there, and started again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.common import emit, write_movie
from benchmarks.shard_memory import SIZE, scattered
from benchmarks.shard_throughput import ours
from tapray.config import CropConfig, RayConfig

SIDE = 512


def run(path: Path, folder: Path, frames: int, crops: int, cpus: int) -> None:
    from tapray.crops import ranges
    from tapray.distributed.cluster import session

    ranges.RANGE_BYTES = 4 << 20  # many small parts
    with session(RayConfig(num_cpus=cpus)):
        ours(path, scattered(frames, SIDE, crops), CropConfig(size=SIZE), folder)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.parquet"))}


def killed(path: Path, folder: Path, frames: int, crops: int, parts: int) -> int:
    """Runs until half of the parts are there, then kills the whole tree; returns the parts left behind."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run, args=(path, folder, frames, crops, 1))
    process.start()
    while process.is_alive() and len(list(folder.glob("frames-*.parquet"))) < parts // 2:
        time.sleep(0.005)
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.join()
    return len(list(folder.glob("frames-*.parquet")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--crops", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        path = root / "movie.tif"
        write_movie(path, given.frames, SIDE, SIDE, "zlib")
        for cpus in (1, 4):
            run(path, root / str(cpus), given.frames, given.crops, cpus)
        whole = digests(root / "1")
        parts = len(list((root / "1").glob("frames-*.parquet")))
        left = killed(path, root / "killed", given.frames, given.crops, parts)
        before = {p.name: p.stat().st_mtime_ns for p in (root / "killed").glob("*.parquet")}
        run(path, root / "killed", given.frames, given.crops, 4)
        kept = sum((root / "killed" / file).stat().st_mtime_ns == t for file, t in before.items())
        emit(
            "shard_identity",
            {
                **vars(given),
                "parts": parts,
                "files": len(whole),
                "same_from_1_and_4_tasks": whole == digests(root / "4"),
                "parts_when_killed": left,
                "files_kept_on_restart": kept,
                "same_after_kill": whole == digests(root / "killed"),
            },
        )


if __name__ == "__main__":
    main()
