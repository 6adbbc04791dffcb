"""The same recipe in the published code's own loop and in ours: crop pairs a second, on the same movie.

    git clone the repository weigertlab/tarrow; pip install torchvision dill tensorboard gitpython
    python -m benchmarks.published_loop path/of/tarrow

`published` is its data set, augmentation 5, data loader and `fit`, unchanged, with the workers of its own
configuration (4) and with none; `tapray` our trainer on our crops. Both have the published U-Net, crops drawn
uniformly, all augmentations, two threads. `published, step alone` is its optimiser step on crops that are
there; beside all of them the rate of a plain matrix product. Arms take turns; a round's rate is of all its
steps but the first two, and figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tifffile
import torch

from benchmarks.common import emit, store_frames, write_movie
from benchmarks.step_speed import OPTIONS, configured, matrix_rate, operations
from benchmarks.step_speed import published as published_step
from tapray.config import SamplerKind
from tapray.crops.splits import whole
from tapray.data.movies import open_movie
from tapray.pretrain import frames as store
from tapray.pretrain.batches import Batches
from tapray.pretrain.trainer import Trainer

WARM = 2  # steps that do not count
FRAMES, SIDE = 24, 1024


class Timed:
    """Batches of a loader, and when each was asked for."""

    def __init__(self, batches: Any, number: int) -> None:
        self.batches, self.number, self.asked = batches, number, list[float]()

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.asked.append(time.perf_counter())
            yield batch
        self.asked.append(time.perf_counter())


def published(movie: Path, size: int, batch: int, steps: int, workers: int, folder: Path) -> float:
    """Seconds a step."""
    from tarrow.data import TarrowDataset, get_augmenter
    from tarrow.models import TimeArrowNet

    frames = list(tifffile.imread(movie))
    data = TarrowDataset(frames, size=(size, size), augmenter=get_augmenter(5))
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=(steps + WARM) * batch)
    loader = torch.utils.data.DataLoader(data, batch, sampler=sampler, num_workers=workers)
    net = TimeArrowNet("unet", "minimal_batchnorm", n_features=32, symmetric=True, outdir=folder / "net")
    train = Timed(loader, steps + WARM)
    few = [(torch.rand(2, 2, 1, size, size), torch.tensor([0, 1]))]
    options = {"lr_scheduler": "cyclic", "visual_dataset_frequency": 0, "tensorboard": False}
    net.fit(train, few, 1e-4, 50, 1, steps + WARM, **options)
    return _of_steps(train.asked)


def ours(
    movie: Path, size: int, batch: int, steps: int, options: dict[str, Any], folder: Path
) -> Callable[[], float]:
    config = configured(
        size, batch, preset="unet-32", sampler="uniform", augment="paper", schedule="cyclic", **options
    )
    source = open_movie(movie, "m")
    region = whole("m", source.shape)
    store_frames(folder, region, source.read, config, SamplerKind.UNIFORM)
    stream = store.open_stream(folder, [region], config, SamplerKind.UNIFORM, 0)
    batches, trainer = Batches(stream, config.pretrain), Trainer(config.pretrain, 0)

    return functools.partial(_timed, lambda: trainer.train_step(*batches.train(0, trainer.step)), steps)


def _timed(step: Callable[[], Any], steps: int) -> float:
    asked = []
    for _ in range(steps + WARM):
        asked.append(time.perf_counter())
        step()
    return _of_steps([*asked, time.perf_counter()])


def _of_steps(asked: list[float]) -> float:
    """Seconds a step, of all but the first ones."""
    return (asked[-1] - asked[WARM]) / (len(asked) - 1 - WARM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--options", nargs="+", default=["plain", "compile"], choices=[*OPTIONS])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    sys.path.insert(0, str(given.checkout))
    logging.disable(logging.INFO)
    torch.set_num_threads(2)
    cyclic = torch.optim.lr_scheduler.CyclicLR  # took `verbose` when that code was written
    torch.optim.lr_scheduler.CyclicLR = functools.partial(_without_verbose, cyclic)  # type: ignore[misc,assignment]
    figures: dict[str, Any] = {}
    for size, batch in ((48, 16), (96, 8)):
        figures[f"size_{size}"] = _compared(size, batch, given.steps, given.repeats, given.options)
        print(figures, file=sys.stderr, flush=True)
    emit("published_loop", {"steps": given.steps, "repeats": given.repeats, **figures})


def _compared(
    size: int, batch: int, steps: int, repeats: int, options: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Rates of every arm, in turn, as they are and beside the published loop's and a matrix product's."""
    with tempfile.TemporaryDirectory() as name:
        folder, movie = Path(name), Path(name) / "movie.tif"
        write_movie(movie, FRAMES, SIDE, SIDE, None)
        torch._dynamo.reset()  # else the second size would be compiled for sizes of any kind
        arms: dict[str, Callable[[], float]] = {
            f"tapray, {option}": ours(movie, size, batch, steps, OPTIONS[option], folder / "frames")
            for option in options
        }
        arms["published, step alone"] = functools.partial(_timed, published_step(size, batch), steps)
        taken: dict[str, list[float]] = {}
        matrix: list[float] = []
        for number in range(repeats):
            for workers in (0, 4):
                once = published(movie, size, batch, steps, workers, folder / f"{number}-{workers}")
                taken.setdefault(f"published, {workers} workers", []).append(once)
            for arm, work in arms.items():
                taken.setdefault(arm, []).append(work())
            matrix.append(matrix_rate(3))
    rates = {arm: batch / statistics.median(times) for arm, times in taken.items()}
    best = max(rate for arm, rate in rates.items() if arm.endswith("workers"))
    share = operations(size) / statistics.median(matrix)
    return {
        arm: {"pairs_per_s": rate, "to_published": rate / best, "to_matrix_rate": rate * share}
        for arm, rate in rates.items()
    }


def _without_verbose(schedule: Any, *args: Any, verbose: bool = False, **kwargs: Any) -> Any:
    return schedule(*args, **kwargs)


if __name__ == "__main__":
    main()
