"""Which presets and samplers find the arrow? Arrow accuracy on held-out frames against steps and seconds.

    python -m benchmarks.convergence ../shared/data --movies hela psc --minutes 6 > convergence.json

Each arm trains by the default recipe in this process, on the last 70 % of the movie's frames, until its steps
or its time are over; the clock stands still while it is looked at, on 2048 crops of 48 px of the first
frames, drawn by change and uniformly, the same for every arm. With `--device cuda` seconds are the GPU's, and
meaningless where several runs share it. The control is benchmarks/shuffled_control.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from benchmarks.arrow_control import stored
from benchmarks.common import emit
from benchmarks.time_to_quality import LOOK, reached, times_to_look
from tapray.config import JobConfig, PretrainConfig, SamplerKind
from tapray.crops.draw import CropStream
from tapray.data.movies import open_movie
from tapray.model.backbones import PRESETS
from tapray.pretrain.batches import Batches
from tapray.pretrain.loop import validate
from tapray.pretrain.trainer import Trainer

MOVIES = {"hela": ("Fluo-N2DL-HeLa/01", "sqrt"), "psc": ("PhC-C2DL-PSC/01", "linear")}
HELD_OUT = 0.3  # of the frames, the first ones
LEVELS = (0.55, 0.6, 0.65, 0.7)  # of the arrow accuracy for crops drawn by change
ARMS: dict[str, dict[str, Any]] = {
    **{name: {"preset": name} for name in PRESETS},
    **{f"unet-12s2, {kind}": {"sampler": kind} for kind in SamplerKind if kind is not SamplerKind.CHANGE},
}


def movie_frames(data: Path, name: str) -> tuple[NDArray[Any], str]:
    """All frames (T, H, W) of one of MOVIES, and how their intensities are read."""
    path, intensity = MOVIES[name]
    movie = open_movie(data / path)
    return movie.read(0, movie.shape[0]), intensity


def stream(
    frames: NDArray[Any], job: JobConfig, kind: SamplerKind, folder: Path, seed: int = 0
) -> CropStream:
    """Crops of these frames, drawn by that sampler."""
    found = [stored("m", frames, job, kind, folder)]
    return CropStream(found, job.pretrain.size, job.pretrain.frames, job.crops.intensity, seed)


def curve(
    frames: NDArray[Any],
    intensity: str,
    given: dict[str, Any],
    minutes: float,
    folder: Path,
    device: torch.device,
    seed: int,
) -> list[dict[str, float]]:
    """Steps, seconds and arrow accuracies of one arm with one seed."""

    def job(settings: dict[str, Any]) -> JobConfig:
        return JobConfig.model_validate(
            {"simulate": {}, "crops": {"intensity": intensity}, "pretrain": settings}
        )

    own, look = job(given), job(LOOK)
    cut = int(len(frames) * HELD_OUT)
    held_out = frames[: cut - own.crops.delta]  # no frame is in both
    kinds = (SamplerKind.CHANGE, SamplerKind.UNIFORM)
    looks = {
        f"arrow_{kind}": Batches(
            stream(held_out, look, kind, folder / f"look-{kind}"), look.pretrain, device=device
        )
        for kind in kinds
    }
    crops = stream(frames[cut:], own, own.pretrain.sampler, folder / "train", seed)
    train = Batches(crops, own.pretrain, device=device)
    trainer, points = Trainer(own.pretrain, seed, device=device), []
    for clock in times_to_look(trainer, train, 0.0, 60 * minutes):
        found = {name: validate(trainer.net, batches)[0] for name, batches in looks.items()}
        pairs = trainer.step * own.pretrain.batch
        points.append({"step": trainer.step, "pairs": pairs, "seconds": clock, **found})
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the Cell Tracking Challenge's movies")
    parser.add_argument("--movies", nargs="+", choices=[*MOVIES], default=[*MOVIES])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--minutes", type=float, default=6, help="of training, at most, for each arm")
    parser.add_argument("--epochs", type=int, default=PretrainConfig().epochs)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="1: two seeds share two cores")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    figures: dict[str, Any] = {}
    for name in given.movies:
        frames, intensity = movie_frames(given.data, name)
        figures[name] = {}
        for arm in given.arms:
            settings = {**ARMS[arm], "epochs": given.epochs}
            with tempfile.TemporaryDirectory() as scratch:
                device = torch.device(given.device)
                points = curve(frames, intensity, settings, given.minutes, Path(scratch), device, given.seed)
            figures[name][arm] = {
                "last": points[-1],
                "reached": {str(level): reached(points, "arrow_change", level) for level in LEVELS},
                "curve": points,
            }
            print(name, arm, json.dumps(points[-1]), file=sys.stderr, flush=True)
    asked = {"minutes": given.minutes, "seed": given.seed, "threads": given.threads}
    emit("convergence", {**asked, "held_out": HELD_OUT, "movies": figures})


if __name__ == "__main__":
    main()
