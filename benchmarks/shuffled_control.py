"""Does a net find an arrow where time has none? It must not: else the pipeline itself gives the order away.

    python -m benchmarks.shuffled_control ../shared/data

Trains the default recipe on a movie's frames in an order of chance, and looks at its arrow accuracy on
held-out frames, shuffled too, in many orders of chance. The crops are augmented there as in training, so that
whatever of drawing, cutting or augmentation gave the order away would show. One order of a few dozen frames
can favour a net by luck: the figure is the mean over orders, each drawn by itself, with the interval of twice
its standard error. Beside it, the same recipe trained on the true order and looked at in the true order, and
`leaky`: on shuffled frames with an augmentation that marks the first frame, which must be found out. Each net
has as many steps as the true order needs to be found. Exits with 1 where an interval leaves out 0.5, the true
order is not found, or the mark is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import emit
from benchmarks.convergence import HELD_OUT, MOVIES, movie_frames, stream
from tapray.config import JobConfig, SamplerKind
from tapray.model.augment import augment
from tapray.model.tap import TapNet
from tapray.pretrain.batches import Batches
from tapray.pretrain.loop import accuracy_of
from tapray.pretrain.trainer import Trainer

STEPS = {"hela": 400, "psc": 1600}  # after which the true order is found (benchmarks/convergence.py)
FOUND = {"true_order": 0.6, "leaky": 0.9}  # accuracy that counts as found
LOOK = {"size": 48, "sharpness": 1.0, "batch": 256, "val_batches": 2}  # 512 crops of each order


def job(intensity: str, settings: dict[str, Any]) -> JobConfig:
    return JobConfig.model_validate({"simulate": {}, "crops": {"intensity": intensity}, "pretrain": settings})


@contextmanager
def marking() -> Iterator[None]:
    """Within the block augmentation makes the first frame a little brighter."""

    def marked(crops: Tensor, mode: str, generator: torch.Generator) -> Tensor:
        crops = augment(crops, mode, generator)
        return torch.cat([crops[:, :1] + 0.1, crops[:, 1:]], dim=1)

    with patch("tapray.pretrain.batches.augment", marked):
        yield


def trained(frames: NDArray[Any], intensity: str, steps: int) -> TapNet:
    own = job(intensity, {"steps_per_epoch": 50, "epochs": -(-steps // 50)})
    with tempfile.TemporaryDirectory() as scratch:
        train = Batches(stream(frames, own, own.pretrain.sampler, Path(scratch)), own.pretrain)
        trainer = Trainer(own.pretrain, 0)
        while trainer.step < steps:
            trainer.train_step(*train.train(*divmod(trainer.step, 50)))
    return trainer.net


def looked_at(net: TapNet, frames: NDArray[Any], intensity: str) -> float:
    look = job(intensity, LOOK)
    with tempfile.TemporaryDirectory() as scratch:
        seen = Batches(stream(frames, look, SamplerKind.CHANGE, Path(scratch)), look.pretrain)
        return accuracy_of(net, (seen.train(0, step) for step in range(look.pretrain.val_batches)))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the Cell Tracking Challenge's movies")
    parser.add_argument("--movies", nargs="+", choices=[*MOVIES], default=[*MOVIES])
    parser.add_argument("--orders", type=int, default=2, help="that nets are trained on, one each")
    parser.add_argument("--looks", type=int, default=20, help="orders that each is looked at in")
    given = parser.parse_args()
    torch.set_num_threads(2)
    figures: dict[str, Any] = {}
    for name in given.movies:
        frames, intensity = movie_frames(given.data, name)
        cut = int(len(frames) * HELD_OUT)
        held_out, rest = frames[: cut - 1], frames[cut:]
        rng, found, steps = np.random.default_rng(0), list[float](), STEPS[name]
        for _ in range(given.orders):
            net = trained(rest[rng.permutation(len(rest))], intensity, steps)
            found += [
                looked_at(net, held_out[rng.permutation(len(held_out))], intensity)
                for _ in range(given.looks)
            ]
        error = float(np.std(found, ddof=1) / np.sqrt(len(found)))
        mean = float(np.mean(found))
        figures[name] = {
            "shuffled": {"mean": mean, "low": mean - 2 * error, "high": mean + 2 * error, "looks": found},
            "true_order": looked_at(trained(rest, intensity, steps), held_out, intensity),
        }
        with marking():
            mixed, other = (frames[rng.permutation(len(frames))] for frames in (rest, held_out))
            net = trained(mixed, intensity, steps)
            figures[name]["leaky"] = looked_at(net, other, intensity)
        print(name, figures[name], file=sys.stderr, flush=True)
    emit("shuffled_control", {"orders": given.orders, "looks": given.looks, "steps": STEPS, **figures})
    blind = all(each["shuffled"]["low"] <= 0.5 <= each["shuffled"]["high"] for each in figures.values())
    found_out = all(each[name] >= least for each in figures.values() for name, least in FOUND.items())
    sys.exit(not (blind and found_out))


if __name__ == "__main__":
    main()
