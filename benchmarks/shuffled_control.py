"""Does a net find an arrow where time has none? It must not: else the pipeline itself gives the order away.

    python -m benchmarks.shuffled_control ../shared/data --orders 2 --steps 400

Trains the default recipe on a movie's frames in an order of chance, and looks at its arrow accuracy on
held-out frames, shuffled too, in many orders of chance. One order of a few dozen frames can favour a net by
luck, so the figure is the mean over the orders, with the interval of twice its standard error; beside it, the
same net recipe trained on the true order and looked at in the true order.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import emit
from benchmarks.convergence import HELD_OUT, MOVIES, movie_frames, stream
from tapray.config import JobConfig, SamplerKind
from tapray.model.tap import TapNet
from tapray.pretrain.batches import Batches
from tapray.pretrain.loop import validate
from tapray.pretrain.trainer import Trainer

LOOK = {"size": 48, "sharpness": 1.0, "batch": 256, "val_batches": 2}  # 512 crops of each order


def job(intensity: str, settings: dict[str, Any]) -> JobConfig:
    return JobConfig.model_validate({"simulate": {}, "crops": {"intensity": intensity}, "pretrain": settings})


def trained(frames: NDArray[Any], intensity: str, steps: int) -> TapNet:
    own = job(intensity, {"steps_per_epoch": 50, "epochs": -(-steps // 50)})
    with tempfile.TemporaryDirectory() as scratch:
        train = Batches(stream(frames, own, own.pretrain.sampler, Path(scratch)), own.pretrain)
        trainer = Trainer(own.pretrain, 0)
        while trainer.step < steps:
            trainer.train_step(*train.train(trainer.step // 50, trainer.step))
    return trainer.net


def looked_at(net: TapNet, frames: NDArray[Any], intensity: str) -> float:
    look = job(intensity, LOOK)
    with tempfile.TemporaryDirectory() as scratch:
        batches = Batches(stream(frames, look, SamplerKind.CHANGE, Path(scratch)), look.pretrain)
        return validate(net, batches)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the Cell Tracking Challenge's movies")
    parser.add_argument("--movies", nargs="+", choices=[*MOVIES], default=[*MOVIES])
    parser.add_argument("--orders", type=int, default=2, help="that nets are trained on, one each")
    parser.add_argument("--looks", type=int, default=20, help="orders that each is looked at in")
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(2)
    figures: dict[str, Any] = {}
    for name in given.movies:
        frames, intensity = movie_frames(given.data, name)
        cut = int(len(frames) * HELD_OUT)
        held_out, rest = frames[: cut - 1], frames[cut:]
        rng, found = np.random.default_rng(0), list[float]()
        for _ in range(given.orders):
            net = trained(rest[rng.permutation(len(rest))], intensity, given.steps)
            found += [
                looked_at(net, held_out[rng.permutation(len(held_out))], intensity)
                for _ in range(given.looks)
            ]
        error = float(np.std(found, ddof=1) / np.sqrt(len(found)))
        mean = float(np.mean(found))
        figures[name] = {
            "shuffled": {"mean": mean, "low": mean - 2 * error, "high": mean + 2 * error, "looks": found},
            "true_order": looked_at(trained(rest, intensity, given.steps), held_out, intensity),
        }
        print(name, figures[name], file=sys.stderr, flush=True)
    told = {name: getattr(given, name) for name in ("orders", "looks", "steps")}
    emit("shuffled_control", {**told, **figures})


if __name__ == "__main__":
    main()
