"""How fast is a training step? In one process; ratios from interleaved rounds, medians.

`step`: pairs a second of the published U-Net in the published loop, and in ours with each of its options;
beside the floating point operations that a step needs and the rate of a plain matrix product.
`data`: crop pairs of 96 px a second that one core draws, cuts and collates from frames in uint16, which lie
in mapped files, as in a job, or in Ray's object store; `ready` with normalisation, which a GPU does itself.
`share`: what of a step of the default recipe goes into the model, the augmentations and the crops.
Memory is kept from step to step, as Ray's workers keep it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import as_workers, emit, write_movie
from benchmarks.reader_feed import fill
from tapray.config import JobConfig, SamplerKind
from tapray.crops.draw import CropStream
from tapray.crops.splits import whole
from tapray.data.movies import open_movie
from tapray.model.losses import tap_loss
from tapray.model.tap import TapNet
from tapray.pretrain import frames as store
from tapray.pretrain.batches import Batches
from tapray.pretrain.trainer import Trainer

CPU = torch.device("cpu")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "compile_channels_last": {"compile": True, "channels_last": True},
    "bf16": {"precision": "bf16"},
    "bf16_channels_last": {"precision": "bf16", "channels_last": True},
}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rounds(arms: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each arm; the arms take turns, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(repeats + 1):
        for name, work in arms.items():
            once = seconds(work)
            if number:
                taken[name].append(once)
    return {name: statistics.median(times) for name, times in taken.items()}


def configured(size: int, batch: int, **pretrain: Any) -> JobConfig:
    given = {"size": size, "batch": batch, **pretrain}
    return JobConfig.model_validate({"simulate": {}, "pretrain": given})


def published(size: int, batch: int, preset: str = "unet-32") -> Callable[[], Any]:
    """A step as published: single precision, default memory layout, Adam (arXiv 2411.03924, section 3)."""
    net = TapNet(preset)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-6)
    crops, first = torch.rand(batch, 2, size, size), torch.arange(batch) % 2

    def step() -> None:
        logits, features = net(crops)
        loss, _ = tap_loss(logits, features, first, 0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def ours(size: int, batch: int, **pretrain: Any) -> Callable[[], Any]:
    config = configured(size, batch, preset="unet-32", **pretrain)
    trainer = Trainer(config.pretrain, 0)
    crops, first = torch.rand(batch, 2, size, size), torch.arange(batch) % 2
    return lambda: trainer.train_step(crops, first)


def operations(size: int, preset: str = "unet-32") -> float:
    """Floating point operations of a step with one crop pair more, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        published(size, 2, preset)()
    return float(counter.get_total_flops()) / 2


def matrix_rate(
    repeats: int,
    side: int = 2048,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    several: Callable[[Callable[[], Any]], Callable[[], Any]] = lambda work: work,
    calls: int = 1,
) -> float:
    """Floating point operations a second of a product of two square matrices.

    several: makes one timed work of so many calls.
    """
    a = torch.rand(side, side, device=device).to(dtype)
    return calls * 2 * side**3 / rounds({"product": several(lambda: a @ a)}, repeats)["product"]


def step(repeats: int, names: list[str]) -> dict[str, Any]:
    """The published U-Net, at 48 and 96 px."""
    figures: dict[str, Any] = {"threads": torch.get_num_threads()}
    rate = matrix_rate(max(repeats, 5))
    figures["matrix_gflops"] = rate / 1e9
    for size, batch in ((48, 16), (96, 8)):
        torch._dynamo.reset()  # else the second size would be compiled for sizes of any kind
        needed = operations(size)  # a pair
        arms = {name: ours(size, batch, **OPTIONS[name]) for name in names}
        found = rounds({"published": published(size, batch), **arms}, repeats)
        figures[f"size_{size}"] = {"gflop_per_pair": needed / 1e9} | {
            name: {
                "pairs_per_s": batch / taken,
                "to_published": found["published"] / taken,
                "to_matrix_rate": batch * needed / taken / rate,
            }
            for name, taken in found.items()
        }
    return figures


def batches(folder: Path, size: int, batch: int, device: torch.device = CPU, **pretrain: Any) -> Batches:
    """Crops from a movie of 64 frames of 1024 x 1024 px, uint16, drawn by change."""
    path, config = folder / "movie.tif", configured(size, batch, **pretrain)
    if not path.exists():
        write_movie(path, 64, 1024, 1024, None)
    fill(folder / f"frames_{size}", path, config)
    region = whole("m", open_movie(path, "m").shape)
    stream = store.open_stream(folder / f"frames_{size}", [region], config, SamplerKind.CHANGE, 0)
    return Batches(stream, config.pretrain, device=device)


def later(work: Callable[[int], Any]) -> Callable[[], Any]:
    """Work of a step, of another one each time: what is in the processor's cache is not asked for again."""
    number = count()
    return lambda: work(next(number))


def data(folder: Path, repeats: int) -> dict[str, Any]:
    """Of one core: crops of 96 px, as they go to the device."""
    torch.set_num_threads(1)
    ways = {way: batches(folder, 96, 256) for way in ("mapped", "object_store")}
    ray.init(num_cpus=1, include_dashboard=False)
    stored = ways["object_store"].stream
    held = [ray.put(np.array(source.frames)) for source in stored.sources]
    stored.sources = [
        replace(source, frames=ray.get(frames)) for source, frames in zip(stored.sources, held, strict=True)
    ]

    def twenty(one: Callable[[], Any]) -> None:
        for _ in range(20):
            one()

    def cut(stream: CropStream, step: int) -> None:
        stream.cut(stream.positions(0, step, 256))

    arms: dict[str, Callable[[int], Any]] = {}
    for way, own in ways.items():
        arms |= {way: partial(cut, own.stream), f"{way}, ready": partial(own.crops, 0)}
    found = rounds({name: partial(twenty, later(work)) for name, work in arms.items()}, repeats)
    ray.shutdown()
    return {"size": 96, "batch": 256} | {
        name: {"pairs_per_s": 20 * 256 / taken} for name, taken in found.items()
    }


def share(folder: Path, repeats: int) -> dict[str, Any]:
    """Of one core: the parts of a step, for our recipe and for the published one."""
    torch.set_num_threads(1)
    figures = {}
    recipes: dict[str, tuple[int, int, dict[str, Any]]] = {
        "unet-12s2, 48 px, light": (48, 64, {}),
        "unet-12s2, 96 px, paper": (96, 64, {"augment": "paper"}),
        "unet-32, 48 px, paper": (48, 16, {"preset": "unet-32", "augment": "paper"}),
    }
    for name, (size, batch, pretrain) in recipes.items():
        own = batches(folder, size, batch, **pretrain)
        trainer = Trainer(own.config, 0)
        crops = own.crops(0, 0)
        given = own.augmented(crops, 0, 0)
        parts: dict[str, Callable[[], Any]] = {
            "crops": later(partial(own.crops, 0)),
            "augment": later(partial(own.augmented, crops, 0)),
            "model": partial(trainer.train_step, *given),
        }
        found = rounds(parts, repeats)
        whole_step = sum(found.values())
        figures[name] = {"pairs_per_s": batch / whole_step} | {k: v / whole_step for k, v in found.items()}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=["step", "data", "share"])
    parser.add_argument("--options", nargs="+", default=[*OPTIONS], choices=[*OPTIONS])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    as_workers()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        if "step" in given.parts:
            figures["step"] = step(given.repeats, given.options)
        if "data" in given.parts:
            figures["data"] = data(Path(name), given.repeats)
        if "share" in given.parts:
            figures["share"] = share(Path(name), given.repeats)
    emit("step_speed", {**vars(given), **figures})


if __name__ == "__main__":
    main()
