"""What do Ray Train and more workers cost? Pairs a second of the same job in several ways, round after round.

`plain`: the training loop in one process without Ray. `ray_1`: Ray Train with one worker. `ray_2`: with two,
which share the batch; `ray_2_wide`: with two, each with a whole one. `ddp_2`: as `ray_2`, without Ray.
`plain_2`: two plain processes at once that know nothing of each other, the most that the machine can give.
`model`: the net's step alone, on crops that are there, in one process; `model_2`: in two at once, half a
batch each. Their time over that of a step of `plain`, `ray_1`, `ddp_2` or `ray_2` is the model's share of it.
Every process computes with one thread. Pairs a second are the median of a run's records after its first
epoch; figures are medians over the rounds, and each round begins with another arm.

`predicted` is the time of a step on N GPUs, each with a worker of its own: the step of one, and the ring that
sums the gradients, 2 (N - 1) / N x bytes / bandwidth + 2 (N - 1) x latency, nothing of it hidden.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch.nn.parallel import DistributedDataParallel

from benchmarks.common import emit
from benchmarks.time_to_quality import stream
from tapray.config import JobConfig, MovieEntry, Role
from tapray.configfile import load_config
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.crops.draw import Region
from tapray.distributed.cluster import session
from tapray.distributed.train import pretrain, summed
from tapray.model.tap import TapNet
from tapray.pretrain.batches import Batches
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.frames import open_stream
from tapray.pretrain.loop import Team, run
from tapray.pretrain.trainer import MEMORY, Trainer

BATCH = 64  # crop pairs a step
STUDY: dict[str, Any] = {
    "name": "scaling",
    "out": "run",
    "simulate": {"n_movies": 3, "frames": 40, "height": 256, "width": 256},
    "pretrain": {"batch": BATCH, "steps_per_epoch": 20, "epochs": 4, "val_batches": 1},
    "ray": {"num_cpus": 2},
}
LINKS = {  # bytes a second and seconds: one node of 8 GPUs (NVLink), several nodes (100 Gb/s Ethernet)
    "NVLink, 300 GB/s, 5 us": (300e9, 5e-6),
    "Ethernet, 100 Gb/s, 20 us": (12.5e9, 20e-6),
}
GPUS = (8, 64, 512)
# Of the pairs a second; each a median over the rounds, since a machine is not as fast in all of them.
RATIOS = (
    *(("ray_1", "plain"), ("ray_2", "ray_1"), ("ray_2_wide", "ray_1"), ("ddp_2", "plain")),
    *(("plain_2", "plain"), ("model_2", "model")),
    *(
        ("plain", "model"),
        ("ray_1", "model"),
        ("ddp_2", "model_2"),
        ("ray_2", "model_2"),
    ),  # the model's share
)


def job(folder: Path) -> tuple[JobConfig, dict[Role, list[Region]], Path]:
    """The configuration, its regions and its frames, made once."""
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    config = load_config(folder / "study.yaml")
    if not (folder / "run").exists():
        command = [sys.executable, "-m", "tapray", "shard", "study.yaml", "--progress", "quiet"]
        subprocess.run(command, cwd=folder, check=True)
    listed = json.loads((folder / "run" / "simulate" / "movies.json").read_text())
    inputs = Inputs(config, [MovieEntry.model_validate(item) for item in listed])
    for role in (Role.TRAIN, Role.VAL):
        stream(inputs, role, config.pretrain, config.pretrain.sampler, 0, folder / "frames")
    return config, {role: inputs.regions_of(role) for role in Role}, folder / "frames"


def plain(folder: Path, log: Path, batch: int) -> None:
    """In this process, on one thread."""
    torch.set_num_threads(1)
    config, regions, frames = job(folder)
    own = config.pretrain.model_copy(update={"batch": batch})
    train, val = (
        Batches(open_stream(frames, regions[role], config, own.sampler, 0), own)
        for role in (Role.TRAIN, Role.VAL)
    )
    saved = log.with_suffix("")
    saved.mkdir()
    run(Trainer(own, 0), train, val, Checkpoints(saved, 2), log, Team())


def at_once(works: Sequence[tuple[Callable[..., None], tuple[Any, ...]]]) -> float:
    """Runs works in processes of their own, which keep memory as Ray's workers do; the seconds taken."""
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=given) for work, given in works]
    os.environ.update(MEMORY)
    for process in processes:
        process.start()
    for name in MEMORY:
        del os.environ[name]
    for process in processes:
        process.join()
    return time.perf_counter() - start


def model(folder: Path, log: Path, batch: int) -> None:
    """Steps on the same crops, in this process, on one thread; writes what a run writes."""
    torch.set_num_threads(1)
    config, regions, frames = job(folder)
    own = config.pretrain.model_copy(update={"batch": batch})
    crops = open_stream(frames, regions[Role.TRAIN], config, own.sampler, 0)
    given, trainer = Batches(crops, own).train(0, 0), Trainer(own, 0)
    records = []
    for epoch in range(own.epochs):
        start = time.perf_counter()
        for _ in range(own.steps_per_epoch):
            trainer.train_step(*given)
        taken = (time.perf_counter() - start) / own.steps_per_epoch
        records.append(json.dumps({"epoch": epoch, "pairs_per_s": batch / taken}))
    log.write_text("\n".join(records))


def alone(
    work: Callable[..., None], folder: Path, log: Path, number: int, batch: int = BATCH
) -> dict[str, float]:
    """Processes that know nothing of each other; their pairs a second together."""
    logs = [log.with_stem(f"{log.stem}_{rank}") for rank in range(number)]
    seconds = at_once([(work, (folder, each, batch)) for each in logs])
    return told([rate(each) for each in logs], seconds, batch)


def ddp(folder: Path, log: Path, rank: int, meet: str) -> None:
    """One of two that share each batch and sum their gradients, as Ray Train sets them up."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    config, regions, frames = job(folder)
    team = Team(rank, 2, summed)
    train, val = (
        Batches(
            open_stream(frames, regions[role], config, config.pretrain.sampler, 0), config.pretrain, rank, 2
        )
        for role in (Role.TRAIN, Role.VAL)
    )
    saved = log.with_suffix("")
    saved.mkdir(exist_ok=True)
    trainer = Trainer(config.pretrain, 0, wrap=DistributedDataParallel)
    run(trainer, train, val, Checkpoints(saved, 2), log, team)
    dist.destroy_process_group()


def ddp_2(folder: Path, log: Path) -> dict[str, float]:
    meet = f"file://{log.with_suffix('.meet')}"
    seconds = at_once([(ddp, (folder, log, rank, meet)) for rank in range(2)])
    return told([rate(log)], seconds)


def with_ray(folder: Path, log: Path, workers: int, batch: int = BATCH) -> dict[str, float]:
    config, regions, frames = job(folder)
    ray = config.ray.model_copy(update={"train_workers": workers})
    own = config.pretrain.model_copy(update={"batch": batch})
    config = config.model_copy(update={"ray": ray, "pretrain": own})
    start = time.perf_counter()
    with session(config.ray):
        pretrain(config, regions, frames, log.with_suffix(""), log, Reporter("quiet"))
    return told([rate(log)], time.perf_counter() - start, batch)


def rate(log: Path) -> float:
    """The median over the records after the first epoch."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return statistics.median(record["pairs_per_s"] for record in records if record["epoch"] > 0)


ARMS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "model": partial(alone, model, number=1),
    "plain": partial(alone, plain, number=1),
    "ray_1": partial(with_ray, workers=1),
    "ray_2": partial(with_ray, workers=2),
    "ray_2_wide": partial(with_ray, workers=2, batch=2 * BATCH),
    "ddp_2": ddp_2,
    "plain_2": partial(alone, plain, number=2),
    "model_2": partial(alone, model, number=2, batch=BATCH // 2),
}


def told(rates: list[float], taken: float, batch: int = BATCH) -> dict[str, float]:
    """Pairs a second, and the seconds that went elsewhere: start, validation, checkpoints, end."""
    settings = STUDY["pretrain"]
    pairs = settings["steps_per_epoch"] * settings["epochs"] * batch
    return {"pairs_per_s": sum(rates), "around_s": taken - pairs / statistics.mean(rates)}


def on_gpu() -> float:
    """Seconds of the fastest step of the default preset at 48 px, as benchmarks/gpu_speed.py has found it."""
    figures = json.loads((Path(__file__).parent / "results" / "gpu_speed.json").read_text())
    found = figures["step"]["unet-12s2, 48 px"]
    return float(found["batch"] / found["bf16_compile_channels_last"]["pairs_per_s"])


def predicted(step_s: float, gradient_bytes: int) -> dict[str, Any]:
    """Seconds of a step and the share of it that is computing, by link and number of GPUs."""
    table: dict[str, Any] = {}
    for link, (bandwidth, latency) in LINKS.items():
        for gpus in GPUS:
            ring = 2 * (gpus - 1) / gpus * gradient_bytes / bandwidth + 2 * (gpus - 1) * latency
            table[f"{gpus} GPUs, {link}"] = {"step_s": step_s + ring, "efficiency": step_s / (step_s + ring)}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # Ray's workers would compile every import anew
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job(folder)
        for number in range(given.repeats):
            for name in [*ARMS][number:] + [*ARMS][:number]:
                taken[name].append(ARMS[name](folder, folder / f"{number}_{name}.jsonl"))
            print({key: rows[-1] for key, rows in taken.items()}, file=sys.stderr, flush=True)
    figures: dict[str, Any] = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in taken.items()
    }
    rates = {name: row["pairs_per_s"] for name, row in figures.items()}
    ratios = {
        f"{one}_to_{other}": statistics.median(
            a["pairs_per_s"] / b["pairs_per_s"] for a, b in zip(taken[one], taken[other], strict=True)
        )
        for one, other in RATIOS
    }
    gradient = sum(value.numel() * value.element_size() for value in TapNet("unet-12s2").parameters())
    emit(
        "train_scaling",
        {
            **vars(given),
            **figures,
            **ratios,
            "rounds": taken,
            "gradient_bytes": gradient,
            "predicted": {
                "of the step measured on one core": predicted(BATCH / rates["ray_1"], gradient),
                "of the step measured on a GPU": predicted(on_gpu(), gradient),
            },
        },
    )


if __name__ == "__main__":
    main()
