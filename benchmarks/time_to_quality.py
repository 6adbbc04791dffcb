"""How long until pretraining is good? Our recipe beside the published one, on the same cores.

    python -m benchmarks.time_to_quality prepare sim ttq
    python -m benchmarks.time_to_quality run sim tapray 0 ttq --minutes 60
    python -m benchmarks.time_to_quality table ttq

`run` trains one arm with one seed in this process, from the making of its sampler's weights on, and looks at
it again and again, while the clock stands still: (i) arrow accuracy on frames that no stage has seen, for
crops of 48 px drawn by change and uniformly, the same for every arm; (ii) average precision of a fixed linear
probe (the pooled head's statistics, solved, one ridge) on held-out crops, from 5 and 10 labelled events, mean
over five draws. A run that was stopped goes on.
`table` prints when each level was reached to stay, and the ratios: where the published arm has not arrived,
its time is the cap, and the ratio a lower bound. With `--device cuda` both arms train in bf16: a GPU gets
through the crop pairs that the published recipe needs days for on two cores; it tells pairs, not seconds.
With `--threads 1` two seeds of an arm share two cores.

The published recipe (arXiv 2411.03924, section 3): U-Net of first width 32, crops of 96 px drawn uniformly,
all augmentations, Adam with a learning rate from 1e-4 cyclic to 1e-3, batches of 108.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import as_workers, commit, emit, machine, store_frames
from tapray.atomic import atomic_write
from tapray.config import HeadKind, MovieEntry, PretrainConfig, Role, SamplerKind
from tapray.configfile import load_config
from tapray.crops.budgets import draw_budget
from tapray.crops.collect import Inputs
from tapray.crops.draw import CropStream
from tapray.crops.shards import ShardReader
from tapray.model.heads import PooledHead, build_head
from tapray.model.tap import FEATURES, TapNet
from tapray.pretrain import frames as store
from tapray.pretrain.batches import Batches
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.loop import resume, validate
from tapray.pretrain.trainer import Trainer
from tapray.study.fit import in_batches, solve
from tapray.study.metrics import score
from tapray.study.space import Settings

STUDIES = {"hela": Path("studies/hela.yaml"), "sim": Path("tapray/demo.yaml")}
ARMS: dict[str, dict[str, Any]] = {
    "tapray": {
        **{"preset": "unet-12s2", "size": 48, "batch": 64, "sampler": "change", "augment": "light"},
        **{"schedule": "one_cycle", "learning_rate": 4e-3, "steps_per_epoch": 50},
    },
    "published": {
        **{"preset": "unet-32", "size": 96, "batch": 108, "sampler": "uniform", "augment": "paper"},
        **{"schedule": "cyclic", "learning_rate": 1e-3, "steps_per_epoch": 500, "epochs": 200},
    },
}
EPOCHS = {"hela": 24, "sim": 12}  # of our recipe
LEVELS = {
    "hela": {"arrow_change": [0.6, 0.65, 0.7], "ap_5": [0.8, 0.9, 0.95], "ap_10": [0.8, 0.9, 0.95]},
    "sim": {"arrow_change": [0.6, 0.65, 0.7], "ap_5": [0.9, 0.95, 0.98], "ap_10": [0.95, 0.98, 0.99]},
}
ON_GPU: dict[str, dict[str, Any]] = {
    "tapray": {"precision": "bf16", "channels_last": True},
    "published": {"precision": "bf16", "channels_last": True, "compile": True},
}
BUDGETS, DRAWS, RIDGE = (5, 10), 5, Settings(weight_decay=1.0)
LOOK = {"size": 48, "sharpness": 1.0, "batch": 256, "val_batches": 8}  # 2048 crops, the same for every arm


def settings(data: str, arm: str, device: torch.device, precision: str | None = None) -> PretrainConfig:
    given = load_config(STUDIES[data]).pretrain
    kept = {"sharpness": given.sharpness, "include": given.include, "epochs": EPOCHS[data]}
    faster = ON_GPU[arm] if device.type == "cuda" else {}
    asked = {"precision": precision} if precision else {}
    return PretrainConfig.model_validate({**kept, **ARMS[arm], **faster, **asked})


def prepare(data: str, folder: Path) -> None:
    """Labelled crops and their split, by the command line."""
    command = [sys.executable, "-m", "tapray", "shard", str(STUDIES[data]), "--out", str(folder / data)]
    subprocess.run(command, check=True)


def inputs_of(data: str, folder: Path) -> Inputs:
    config = load_config(STUDIES[data])
    if config.simulate is None:
        return Inputs(config, config.movies)
    listed = json.loads((folder / data / "simulate" / "movies.json").read_text())
    return Inputs(config, [MovieEntry.model_validate(item) for item in listed])


def stream(
    inputs: Inputs, role: Role, pretrain: PretrainConfig, kind: SamplerKind, seed: int, folder: Path
) -> CropStream:
    """Crops of a split as a configuration draws them; frames and weights lie in `folder`."""
    config = inputs.config.model_copy(update={"pretrain": pretrain})
    regions = inputs.regions_of(role)
    for region in regions:
        store_frames(folder, region, inputs.movies[region.movie].read, config, kind)
    return store.open_stream(folder, regions, config, kind, seed)


class Probe:
    """A fixed linear probe on labelled crops."""

    def __init__(self, folder: Path, intensity: str) -> None:
        reader = ShardReader(folder / "shard")
        self.index = reader.index()
        side = reader.read_part(reader.parts()[0], intensity)[1].shape[-1]
        self.pairs = np.empty((len(self.index), 2, side, side), np.float16)
        for path in reader.parts():
            crop_id, pairs = reader.read_part(path, intensity)
            self.pairs[crop_id] = pairs
        self.labels = torch.from_numpy((self.index.label.to_numpy() > 0).astype(np.int64))

    def scores(self, net: TapNet) -> dict[str, float]:
        """Average precision on test crops by label budget."""
        device = next(net.parameters()).device
        side = net.backbone(torch.zeros(1, 1, *self.pairs.shape[2:], device=device)).shape[-1]

        def head() -> PooledHead:
            made = build_head(HeadKind.POOLED, FEATURES, side, 2, torch.Generator().manual_seed(0))
            assert isinstance(made, PooledHead)
            return made

        front = head().front
        fronts = in_batches(lambda pairs: front(net.features(pairs.to(device)).cpu()), self.pairs, 128)
        unlabelled = torch.from_numpy((self.index.split == "train").to_numpy(copy=True))
        test = torch.from_numpy((self.index.split == "test").to_numpy(copy=True))
        found = {}
        for budget in BUDGETS:
            each = []
            for draw in range(DRAWS):
                rows = draw_budget(self.index, budget, 10, draw)
                probe = head()
                probe.settle(fronts[unlabelled])
                solve(probe, fronts[rows], self.labels[rows], RIDGE)
                with torch.no_grad():
                    probabilities = torch.softmax(probe(fronts[test]).double(), 1).numpy()
                each.append(score(probabilities, self.labels[test].numpy(), 2)["ap"])
            found[f"ap_{budget}"] = float(np.mean(each))
        return found


def run(
    data: str,
    arm: str,
    seed: int,
    folder: Path,
    minutes: float,
    device: torch.device,
    apart: float = 15,
    precision: str | None = None,
    threads: int = 2,
) -> None:
    """Trains and looks, until the recipe's end or the cap."""
    torch.set_num_threads(threads)
    inputs, pretrain = inputs_of(data, folder), settings(data, arm, device, precision)
    frames = folder / data / f"frames-{arm}"
    make = partial(stream, inputs, Role.TRAIN, pretrain, pretrain.sampler, seed, frames)
    own, prepared = timed(frames, make)
    train = Batches(own, pretrain, device=device)
    looks = held_out(inputs, folder / data / "frames-look", device)
    probe = Probe(folder / data, inputs.config.crops.intensity)
    path = folder / f"{data}-{arm}-{seed}.json"
    trainer, saved = Trainer(pretrain, seed, device=device), Checkpoints(folder / f"{data}-{arm}-{seed}", 1)
    resume(trainer, saved)
    curve = json.loads(path.read_text())["curve"] if path.exists() else []
    curve = [point for point in curve if point["step"] <= trainer.step] if trainer.step else []
    before = curve[-1]["seconds"] if curve else prepared
    for clock in times_to_look(trainer, train, before, 60 * minutes, apart):
        net = trainer.net.eval()
        point = {"step": trainer.step, "pairs": trainer.step * pretrain.batch, "seconds": clock}
        point |= {name: validate(net, batches)[0] for name, batches in looks.items()} | probe.scores(net)
        net.train()
        curve.append(point)
        print(json.dumps(point), file=sys.stderr, flush=True)
        facts = {
            **{"data": data, "arm": arm, "seed": seed, "minutes": minutes, "apart": apart},
            **{"precision": pretrain.precision, "threads": threads, "commit": commit()},
        }
        atomic_write(path, json.dumps({**facts, "machine": machine(), "curve": curve}))
        saved.save(trainer.tensors(), trainer.step, [0.0], True)


def held_out(inputs: Inputs, frames: Path, device: torch.device) -> dict[str, Batches]:
    """Crops of frames that no stage has seen, drawn by change and uniformly."""
    look = PretrainConfig.model_validate(LOOK)
    return {
        f"arrow_{kind}": Batches(stream(inputs, Role.TEST, look, kind, 1, frames), look, device=device)
        for kind in (SamplerKind.CHANGE, SamplerKind.UNIFORM)
    }


def timed(folder: Path, make: Callable[[], CropStream]) -> tuple[CropStream, float]:
    """What is made in a folder, and the seconds that it took the first time."""
    note, start = folder / "seconds", time.perf_counter()
    made = make()
    if not note.exists():
        atomic_write(note, str(time.perf_counter() - start))
    return made, float(note.read_text())


def times_to_look(
    trainer: Trainer, train: Batches, clock: float, limit: float, apart: float = 15
) -> Iterator[float]:
    """Trains to the end of the recipe or of the time; yields the seconds so far, each `apart` or 25 % on.

    The first time before any step: a net of chance has scores too.
    """
    if not trainer.step:
        yield clock
    steps = trainer.config.steps_per_epoch
    total = trainer.config.epochs * steps
    while clock < limit and trainer.step < total:
        until, start = min(max(clock * 1.25, clock + apart), limit), time.perf_counter()
        while trainer.step < total and clock + time.perf_counter() - start < until:
            trainer.train_step(*train.train(*divmod(trainer.step, steps)))
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        clock += time.perf_counter() - start
        yield clock


def reached(curve: list[dict[str, float]], name: str, level: float) -> dict[str, float] | None:
    """Seconds and crop pairs until the level was reached to stay: here, and on average from here on.

    A net of chance has scores of its own, from which training first leads away.
    """
    for number, point in enumerate(curve):
        if min(point[name], float(np.mean([later[name] for later in curve[number:]]))) >= level:
            return {"seconds": point["seconds"], "pairs": point["pairs"]}
    return None


def table(folder: Path) -> dict[str, Any]:
    """Medians over seeds of the time to each level, and the published arm's over ours."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found: dict[str, Any] = {}
    for data in sorted({each["data"] for each in runs}):
        levels = {}
        for name, values in LEVELS[data].items():
            for level in values:
                levels[f"{name} >= {level}"] = _compared([r for r in runs if r["data"] == data], name, level)
        found[data] = levels
    return {"levels": found, "runs": runs}


def _compared(runs: list[dict[str, Any]], name: str, level: float) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for arm in ARMS:
        own = [run for run in runs if run["arm"] == arm]
        times = [reached(run["curve"], name, level) for run in own]
        if not own:
            continue
        arrived = [time["seconds"] for time in times if time]
        ends = [
            time["seconds"] if time else run["curve"][-1]["seconds"]
            for run, time in zip(own, times, strict=True)
        ]
        row[arm] = {"arrived": len(arrived), "of": len(own), "median_s": float(np.median(ends))}
        row[arm]["median_pairs"] = float(np.median([t["pairs"] for t in times if t])) if arrived else None
    if len(row) == 2 and row["tapray"]["arrived"] == row["tapray"]["of"]:
        row["ratio"] = row["published"]["median_s"] / row["tapray"]["median_s"]
        row["is_lower_bound"] = row["published"]["arrived"] < row["published"]["of"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "run"):
        command = commands.add_parser(name)
        command.add_argument("data", choices=[*STUDIES])
        if name == "run":
            command.add_argument("arm", choices=[*ARMS])
            command.add_argument("seed", type=int)
            command.add_argument("--minutes", type=float, default=60)
            command.add_argument("--device", default="cpu")
            command.add_argument("--precision", help="of both arms (fp32, bf16, fp16)")
            command.add_argument("--apart", type=float, default=15, help="seconds between looks, at least")
            command.add_argument("--threads", type=int, default=2)
        command.add_argument("folder", type=Path)
    commands.add_parser("table").add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.command == "prepare":
        prepare(given.data, given.folder)
    elif given.command == "run":
        as_workers()
        device = torch.device(given.device)
        own = (given.minutes, device, given.apart, given.precision, given.threads)
        run(given.data, given.arm, given.seed, given.folder, *own)
    else:
        emit("time_to_quality", table(given.folder))


if __name__ == "__main__":
    main()
