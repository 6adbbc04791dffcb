"""Does time run one way only where biology does?

Trains the same net on simulated movies as they are and on the control, movies without division, death and
growth, and prints the arrow accuracy on a held-out movie of either as JSON. The control must stay near 0.5:
what moves, bleaches, blurs or flickers must not tell the direction of time.

    python -m benchmarks.arrow_control --steps 400
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import emit, store_frames
from tapray.config import JobConfig, PretrainConfig, SamplerKind, SimulateConfig
from tapray.crops.draw import CropStream, Source
from tapray.crops.splits import whole
from tapray.data.simulate import simulate_movie
from tapray.pretrain import frames as store
from tapray.pretrain.batches import Batches
from tapray.pretrain.loop import validate
from tapray.pretrain.trainer import Trainer

CONTROL = {"division_rate": 0.0, "death_rate": 0.0, "growth": False}


def source(
    config: SimulateConfig, index: int, pretrain: PretrainConfig, sampler: SamplerKind, folder: Path
) -> Source:
    """A simulated movie with the drawing weights of a sampler, its files in `folder`."""
    job = JobConfig(simulate=config, pretrain=pretrain)
    return stored(f"field_{index + 1}", simulate_movie(config, index).frames, job, sampler, folder)


def stored(name: str, frames: NDArray[Any], job: JobConfig, sampler: SamplerKind, folder: Path) -> Source:
    """All of these frames (T, H, W), with the drawing weights of a sampler, its files in `folder`."""
    region = whole(name, frames.shape)
    store_frames(folder, region, lambda first, last: frames[first:last], job, sampler)
    return store.open_sources(store.region_folder(folder, region), region, job, sampler)[0]


def arrow(config: SimulateConfig, pretrain: PretrainConfig, movies: int, folder: Path) -> dict[str, float]:
    def batches(indices: range, sampler: SamplerKind, settings: PretrainConfig, seed: int) -> Batches:
        sources = [source(config, index, settings, sampler, folder) for index in indices]
        return Batches(CropStream(sources, settings.size, 2, "linear", seed), settings)

    train = batches(range(movies), pretrain.sampler, pretrain, 0)
    trainer = Trainer(pretrain, 0)
    right = []
    for epoch in range(pretrain.epochs):
        for step in range(pretrain.steps_per_epoch):
            right.append(float(trainer.train_step(*train.train(epoch, step))[1]))
    report = {"train_last_epoch": float(np.mean(right[-pretrain.steps_per_epoch :]))}
    held_out = pretrain.model_copy(update={"val_batches": 32})
    for sampler in (SamplerKind.CHANGE, SamplerKind.UNIFORM):
        report[f"held_out_{sampler}"], n = validate(
            trainer.net, batches(range(movies, movies + 1), sampler, held_out, 1)
        )
        report["crops"] = n
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--movies", type=int, default=6, help="for training; one more is held out")
    parser.add_argument("--light", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pretrain = PretrainConfig(steps_per_epoch=50, epochs=-(-args.steps // 50), sharpness=1.0)
    ordinary = SimulateConfig(light=args.light, seed=args.seed)
    control = ordinary.model_copy(update=CONTROL)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        figures = {
            "steps": pretrain.epochs * 50,
            "ordinary": arrow(ordinary, pretrain, args.movies, Path(first)),
            "control": arrow(control, pretrain, args.movies, Path(second)),
        }
    emit("arrow_control", figures)


if __name__ == "__main__":
    main()
