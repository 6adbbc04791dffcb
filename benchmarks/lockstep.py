"""Why are two workers not twice as fast as one? Two processes that train, on two cores, without Ray.

    python -m benchmarks.lockstep

Each takes optimiser steps of half a batch, on crops that are there: `free`, neither knows of the other;
`barrier`, they wait for each other after each step; `ddp`, they sum their gradients. What `barrier` loses
beside `free` is waiting, and steps that are slower because both want the memory at the same moments; what
`ddp` loses beside `barrier` is the exchange.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.common import emit
from benchmarks.train_scaling import BATCH, at_once, job
from tapray.config import Role
from tapray.pretrain.batches import Batches
from tapray.pretrain.frames import open_stream
from tapray.pretrain.trainer import Trainer

MODES, STEPS = ("free", "barrier", "ddp"), 72


def steps(folder: Path, log: Path, rank: int, meet: str, mode: str) -> None:
    """Writes pairs a second, and the median seconds of a step without the waiting for the other."""
    torch.set_num_threads(1)
    config, regions, frames = job(folder)
    own = config.pretrain.model_copy(update={"batch": BATCH // 2})
    if mode != "free":
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    given = Batches(open_stream(frames, regions[Role.TRAIN], config, own.sampler, 0), own).train(0, 0)
    trainer = Trainer(own, 0, wrap=DistributedDataParallel if mode == "ddp" else lambda net: net)
    for _ in range(4):
        trainer.train_step(*given)
    taken, start = [], time.perf_counter()
    for _ in range(STEPS):
        before = time.perf_counter()
        trainer.train_step(*given)
        taken.append(time.perf_counter() - before)
        if mode == "barrier":
            dist.barrier()
    rate = STEPS * own.batch / (time.perf_counter() - start)
    log.write_text(json.dumps({"pairs_per_s": rate, "step_s": statistics.median(taken)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rounds: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job(folder)
        for number in range(given.repeats):
            for mode in MODES:
                logs = [folder / f"{number}-{mode}-{rank}.json" for rank in range(2)]
                meet = f"file://{folder / f'{number}-{mode}'}"
                at_once([(steps, (folder, log, rank, meet, mode)) for rank, log in enumerate(logs)])
                both = [json.loads(log.read_text()) for log in logs]
                rounds[mode].append({key: [each[key] for each in both] for key in both[0]})
    emit(
        "lockstep",
        {
            mode: {
                "pairs_per_s": statistics.median(sum(each["pairs_per_s"]) for each in found),
                "step_s": statistics.median(max(each["step_s"]) for each in found),
            }
            for mode, found in rounds.items()
        },
    )


if __name__ == "__main__":
    main()
