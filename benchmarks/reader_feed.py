"""Does the reader of pretraining crops keep up with training? Pairs a second, to one worker and to two.

Each worker is a process of its own that maps the same frames. `cut` draws and cuts the crops, `batch`
augments and swaps them too, `step` is the optimiser step of each preset that consumes them. The wait share
is the part of a training step that goes into drawing and cutting, which nothing hides. Memory is kept from
step to step, as Ray's workers keep it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import as_workers, emit, store_frames, write_movie
from tapray.config import JobConfig, SamplerKind
from tapray.crops.splits import whole
from tapray.data.movies import open_movie
from tapray.model.backbones import PRESETS
from tapray.pretrain import frames as store
from tapray.pretrain.batches import Batches
from tapray.pretrain.trainer import Trainer


def fill(folder: Path, path: Path, config: JobConfig) -> None:
    """The frames of the movie and their drawing weights."""
    movie = open_movie(path, "m")
    store_frames(folder, whole("m", movie.shape), movie.read, config, SamplerKind.CHANGE)


def worker(rank: int, world: int, folder: Path, path: Path, config: JobConfig, steps: int, out: Any) -> None:
    """Seconds of each part of a step of one worker, medians over the steps."""
    torch.set_num_threads(1)
    region = whole("m", open_movie(path, "m").shape)
    stream = store.open_stream(folder, [region], config, SamplerKind.CHANGE, 0)
    batches = Batches(stream, config.pretrain, rank, world)
    cut, whole_batch, share = [], [], config.pretrain.batch // world
    for step in range(steps):
        start = time.perf_counter()
        stream.cut(stream.positions(0, step, config.pretrain.batch)[rank::world])
        cut.append(time.perf_counter() - start)
    for step in range(steps):
        start = time.perf_counter()
        crops, first = batches.train(0, step)
        whole_batch.append(time.perf_counter() - start)
    times = {"cut": statistics.median(cut), "batch": statistics.median(whole_batch)}
    for preset in PRESETS if world == 1 else ():
        trainer = Trainer(config.pretrain.model_copy(update={"preset": preset}), 0)
        taken = []
        for _ in range(4):
            start = time.perf_counter()
            trainer.train_step(crops, first)
            taken.append(time.perf_counter() - start)
        times[preset] = statistics.median(taken)
    out.put((share, times))


def measure(world: int, *given: Any) -> dict[str, Any]:
    """Pairs a second over all workers, and of each preset's step."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=worker, args=(rank, world, *given, queue)) for rank in range(world)]
    for process in workers:
        process.start()
    found = [queue.get() for _ in workers]
    for process in workers:
        process.join()
    figures: dict[str, Any] = {
        f"{part}_pairs_per_s": sum(share / times[part] for share, times in found) for part in ("cut", "batch")
    }
    for preset in PRESETS if world == 1 else ():
        share, times = found[0]
        wait = times["cut"] / (times["batch"] + times[preset])
        figures[preset] = {"step_pairs_per_s": share / times[preset], "wait_share": wait}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    as_workers()
    config = JobConfig.model_validate({"simulate": {}})
    with tempfile.TemporaryDirectory() as name:
        path, folder = Path(name) / "movie.tif", Path(name) / "frames"
        write_movie(path, given.frames, given.side, given.side, None)
        fill(folder, path, config)
        figures = {f"workers_{world}": measure(world, folder, path, config, given.steps) for world in (1, 2)}
    emit(
        "reader_feed",
        {**vars(given), "batch": config.pretrain.batch, "size": config.pretrain.size, **figures},
    )


if __name__ == "__main__":
    main()
