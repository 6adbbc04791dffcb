"""How fast is pretraining on a GPU? Says so where there is none. In one process, without Ray.

`step`: crop pairs a second of each backbone's optimiser step in fp32, bf16 and bf16 compiled, and the share
of the rate of a plain bf16 matrix product. `parts`: of our recipe, what one step takes in the CPU's drawing
and cutting, and on the GPU in augmentation and the net. `loop`: the whole training loop with its records.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import emit
from benchmarks.step_speed import batches, configured, later, matrix_rate, operations, rounds
from tapray.model.backbones import PRESETS
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.loop import Team, run
from tapray.pretrain.trainer import Trainer

GPU = torch.device("cuda")
OPTIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16_channels_last": {"precision": "bf16", "channels_last": True},
    "bf16_compile": {"precision": "bf16", "compile": True},
    "bf16_compile_channels_last": {"precision": "bf16", "compile": True, "channels_last": True},
}
LOOPED = ("bf16_channels_last", "bf16_compile_channels_last")
LONG = 100  # steps of an epoch of the loop
CALLS = 5  # of a step that are timed together
SHAPES = {48: 2048, 96: 512}  # size and batch: as many pixels each


def several(work: Callable[[], Any]) -> Callable[[], None]:
    """Some calls, until the GPU is done with them."""

    def calls() -> None:
        for _ in range(CALLS):
            work()
        torch.cuda.synchronize()

    return calls


def trainer(preset: str, size: int, **pretrain: Any) -> Trainer:
    return Trainer(configured(size, SHAPES[size], preset=preset, **pretrain).pretrain, 0, 1, GPU)


def step(presets: list[str], options: list[str], repeats: int) -> dict[str, Any]:
    """By backbone and size of crop."""
    rate = matrix_rate(repeats, 8192, torch.bfloat16, GPU, several, CALLS)
    figures: dict[str, Any] = {"matrix_tflops": rate / 1e12}
    for preset in presets:
        for size, batch in SHAPES.items():
            crops = torch.rand(batch, 2, size, size, device=GPU)
            first = torch.arange(batch, device=GPU) % 2
            steps = {
                name: several(partial(trainer(preset, size, **OPTIONS[name]).train_step, crops, first))
                for name in options
            }
            needed = operations(size, preset)
            row: dict[str, Any] = {"gflop_per_pair": needed / 1e9, "batch": batch}
            for name, taken in rounds(steps, repeats).items():
                speed = CALLS * batch / taken
                row[name] = {"pairs_per_s": speed, "to_matrix_rate": speed * needed / rate}
            figures[f"{preset}, {size} px"] = row
            print(json.dumps({f"{preset}, {size} px": row}), file=sys.stderr, flush=True)
            torch.compiler.reset()
    return figures


def parts(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of a step's parts, each by itself."""
    figures = {}
    for size, batch in SHAPES.items():
        own = batches(folder, size, batch, GPU, augment="paper", precision="bf16")
        crops = own.crops(0, 0)
        given = own.augmented(crops, 0, 0)
        work = {
            "crops": several(later(partial(own.crops, 0))),
            "augment": several(later(partial(own.augmented, crops, 0))),
            "model": several(partial(Trainer(own.config, 0, 1, GPU).train_step, *given)),
        }
        taken = rounds(work, repeats)
        figures[f"{size} px"] = {"batch": batch} | {name: one / CALLS for name, one in taken.items()}
    return figures


def loop(folder: Path) -> dict[str, Any]:
    """The median over the records after the first epoch, of the two fastest ways."""
    figures = {}
    for number, (name, (size, batch)) in enumerate(itertools.product(LOOPED, SHAPES.items())):
        settings = {"epochs": 3, "steps_per_epoch": LONG, "val_batches": 1, **OPTIONS[name]}
        own = batches(folder, size, batch, GPU, **settings)
        log, saved = folder / f"{number}.jsonl", folder / f"saved_{number}"
        saved.mkdir()
        start = time.perf_counter()
        run(Trainer(own.config, 0, 1, GPU), own, own, Checkpoints(saved, 1), log, Team())
        records = [json.loads(line) for line in log.read_text().splitlines()]
        late = [record for record in records if record["epoch"] > 0]
        kept = ("pairs_per_s", "wait", "gpu_memory_gb", "cpu")
        row = {key: statistics.median(record[key] for record in late) for key in kept}
        row |= {"batch": batch, "seconds": time.perf_counter() - start, "val_arrow": records[-1]["val_arrow"]}
        figures[f"{name}, {size} px"] = row
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["parts", "loop", "step"])
    parser.add_argument("--options", nargs="+", default=[*OPTIONS], choices=[*OPTIONS])
    parser.add_argument("--presets", nargs="+", default=["unet-12s2", "unet-32"], choices=[*PRESETS])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        emit("gpu_speed", {"gpu": "none available"})
        return
    figures: dict[str, Any] = {"torch": torch.__version__}
    with tempfile.TemporaryDirectory() as name:
        if "parts" in given.parts:
            figures["seconds"] = parts(Path(name), given.repeats)
        if "loop" in given.parts:
            figures["loop"] = loop(Path(name))
    if "step" in given.parts:
        figures["step"] = step(given.presets, given.options, given.repeats)
    emit("gpu_speed", {**vars(given), **figures})


if __name__ == "__main__":
    main()
