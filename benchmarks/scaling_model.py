"""How long would 1 TB and 100 TB of movies take on many GPUs, what would it cost, and what breaks first?

    python -m benchmarks.scaling_model > benchmarks/results/scaling_model.json

Takes what was measured from benchmarks/results (shard_throughput, gpu_speed, train_scaling, study_trials),
the rest from how frames are stored and from ASSUMED; prints tables for
docs/scaling.md to standard error.

- frames = bytes / (2 x SIDE^2); decoding, seconds = megabytes / (rate of a core x cores).
- pairs = frames x PASSES; a step of N GPUs, seconds = its computing + the ring that sums the gradients
  (train_scaling.predicted); pretraining, seconds = pairs / (N x batch) x step.
- reading: a crop touches SIZE rows of a frame, each in pages of its own; bytes a second = pairs a second x
  2 frames x SIZE rows x pages of a row.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import emit
from benchmarks.train_scaling import GPUS, predicted
from tapray.report.further import table

RESULTS = Path(__file__).parent / "results"
SIDE, SIZE, PAGE = 2048, 48, 4096  # pixels of a frame and of a crop, bytes of a page
TERABYTES = (1, 100)
ASSUMED: dict[str, Any] = {
    "pairs_per_frame": 50,  # crop pairs drawn of each frame pair, all epochs together
    "cores_per_gpu": 16,
    "usd_per_gpu_hour": 3.0,  # on demand, with its cores; prices change
    "storage_gb_per_s": 20.0,  # of the shared storage, random reads
    "link": "Ethernet, 100 Gb/s, 20 us",
    "trials": 2000,
}


def measured(name: str) -> dict[str, Any]:
    """A benchmark's figures."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"run benchmarks.{name} first: {path.name} is not there")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def row(terabytes: float, gpus: int) -> dict[str, float]:
    """Hours of each stage, dollars, and the share of the storage's bandwidth that pretraining asks for."""
    fast = measured("gpu_speed")["step"][f"unet-12s2, {SIZE} px"]
    shards = measured("shard_throughput")["tapray_2"]
    frames = terabytes * 1e12 / (2 * SIDE**2)
    pairs = frames * ASSUMED["pairs_per_frame"]
    core_mb = shards["mb_per_s"] / 2
    cores = gpus * ASSUMED["cores_per_gpu"]
    decode = terabytes * 1e6 / (core_mb * cores)
    alone = fast["batch"] / fast["bf16_compile_channels_last"]["pairs_per_s"]
    gradient = measured("train_scaling")["gradient_bytes"]
    step = predicted(alone, gradient)[f"{gpus} GPUs, {ASSUMED['link']}"]["step_s"]
    rate = gpus * fast["batch"] / step
    read = rate * 2 * SIZE * -(-2 * SIDE // PAGE) * PAGE / 1e9
    limit = max(1.0, read / ASSUMED["storage_gb_per_s"])
    trials = next(each for each in measured("study_trials")["rows"] if each["sampler"] == "tpe")
    study = ASSUMED["trials"] / trials["trials_per_minute"] * 60
    hours = {"decode": decode / 3600, "pretrain": pairs / rate / 3600, "study": study / 3600}
    limited = hours["decode"] + hours["pretrain"] * limit + hours["study"]
    return {
        **{f"{name}_h": value for name, value in hours.items()},
        "efficiency": alone / step,
        "storage_gb_per_s": read,
        "limited_h": limited,
        "usd": limited * gpus * ASSUMED["usd_per_gpu_hour"],
    }


def main() -> None:
    rows = {f"{size} TB, {gpus} GPUs": row(size, gpus) for size in TERABYTES for gpus in GPUS}
    names = list(next(iter(rows.values())))
    lines = [[key, *(f"{found[name]:.3g}" for name in names)] for key, found in rows.items()]
    print(table(["", *names], lines), file=sys.stderr)
    emit("scaling_model", {"assumed": ASSUMED, "rows": rows})


if __name__ == "__main__":
    main()
