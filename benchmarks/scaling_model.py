"""How long would 1 TB and 100 TB of movies take on many GPUs, what would it cost, and what breaks first?

    python -m benchmarks.scaling_model > benchmarks/results/scaling_model.json

Takes what was measured from benchmarks/results (shard_throughput, gpu_speed, train_scaling, study_trials),
the rest from how frames are stored and from ASSUMED; prints a table for docs/scaling.md to standard error.

- frames = bytes / (2 x SIDE^2).
- decoding, seconds = the longer of bytes / (rate of a core x cores) and of reading the movies from the shared
  storage and writing their frames there.
- pairs = frames x pairs_per_frame; steps = pairs / (N x batch); a step of N GPUs, seconds = its computing +
  the ring that sums the gradients (train_scaling.predicted); pretraining, seconds = steps x step, times what
  storage is too slow.
- reading: a crop touches SIZE rows of a frame, each in pages of its own, of which those are read that are not
  in the node's memory: bytes a second = pairs a second x 2 frames x SIZE rows x pages of a row x share away.
- study, seconds = trials x the longer of computing / cores and of what the driver does for each.
- dollars: all GPUs while decoding and pretraining, one node in the study.
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
    "gpus_per_node": 8,
    "cores_per_gpu": 16,
    "memory_tb_per_node": 2.0,
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


def trial() -> dict[str, float]:
    """Seconds of a search trial: its computing on one core, and the driver's for it; of that Optuna's and
    MLflow's own.
    """
    row = next(each for each in measured("study_trials")["rows"] if each["sampler"] == "tpe")
    own = {name: row[f"{name}_ms_per_trial"] / 1000 for name in ("outside", "optuna", "mlflow")}
    return {"compute": row["computed_s"] / (row["trials"] + row["final_runs"]), **own}


def rates() -> dict[str, float]:
    """What one of each does: a GPU, a core, a driver; and the bytes that they move."""
    fast = measured("gpu_speed")["step"][f"unet-12s2, {SIZE} px"]
    own = trial()
    return {
        "decode_mb_per_s_per_core": measured("shard_throughput")["tapray_2"]["mb_per_s"] / 2,
        "pairs_per_s_per_gpu": fast["bf16_compile_channels_last"]["pairs_per_s"],
        "batch_per_gpu": fast["batch"],
        "bytes_per_pair": 2 * 2 * SIZE**2,
        "bytes_read_per_pair": 2 * SIZE * -(-2 * SIZE // PAGE) * PAGE,
        "gradient_bytes": measured("train_scaling")["gradient_bytes"],
        "trials_per_s_per_core": 1 / own["compute"],
        "trials_per_s_of_a_driver": 1 / own["outside"],
        "optuna_trials_per_s": 1 / own["optuna"],
        "mlflow_trials_per_s": 1 / own["mlflow"],
    }


def row(terabytes: float, gpus: int) -> dict[str, Any]:
    """Hours of each stage, dollars, and what holds up pretraining most.

    `network` and `storage`: by how much each of them makes pretraining longer; `driver`: by how much it makes
    the study longer.
    """
    own = rates()
    frames, cores = terabytes * 1e12 / (2 * SIDE**2), gpus * ASSUMED["cores_per_gpu"]
    disk = ASSUMED["storage_gb_per_s"]
    decode = max(terabytes * 1e6 / (own["decode_mb_per_s_per_core"] * cores), 2 * terabytes * 1e3 / disk)
    alone = own["batch_per_gpu"] / own["pairs_per_s_per_gpu"]
    step = predicted(alone, int(own["gradient_bytes"]))[f"{gpus} GPUs, {ASSUMED['link']}"]["step_s"]
    rate = gpus * own["batch_per_gpu"] / step
    away = max(0.0, 1 - ASSUMED["memory_tb_per_node"] / terabytes)
    read = rate * own["bytes_read_per_pair"] * away / 1e9
    storage = max(1.0, read / disk)
    steps = frames * ASSUMED["pairs_per_frame"] / (gpus * own["batch_per_gpu"])
    pretrain = steps * step * storage
    spent, asked = 1 / own["trials_per_s_of_a_driver"], 1 / own["trials_per_s_per_core"]
    together = asked / (ASSUMED["gpus_per_node"] * ASSUMED["cores_per_gpu"])
    study = ASSUMED["trials"] * max(spent, together)
    limits = {"network": step / alone, "storage": storage, "driver": max(1.0, spent / together)}
    hours = {"decode_h": decode / 3600, "pretrain_h": pretrain / 3600, "study_h": study / 3600}
    price = ASSUMED["usd_per_gpu_hour"]
    usd = price * (gpus * (decode + pretrain) + min(gpus, ASSUMED["gpus_per_node"]) * study) / 3600
    first = max(limits, key=lambda name: limits[name])
    return {**hours, "usd": usd, "steps": steps, "storage_gb_per_s_asked": read, **limits, "first": first}


def main() -> None:
    rows = {f"{size} TB, {gpus} GPUs": row(size, gpus) for size in TERABYTES for gpus in GPUS}
    names = list(next(iter(rows.values())))
    lines = [
        [key, *(each if isinstance(each, str) else f"{each:.3g}" for each in found.values())]
        for key, found in rows.items()
    ]
    print(table(["", *names], lines), file=sys.stderr)
    emit("scaling_model", {"assumed": ASSUMED, "rates": rates(), "rows": rows})


if __name__ == "__main__":
    main()
