"""Does a study give the same results.csv from 1 and from 4 trials at a time, and again? Byte by byte.

    python -m benchmarks.study_identity

One small job is simulated, pretrained and embedded once; then the study of each sampler is run from the same
features with 1 concurrent trial, with 4, and with 4 once more: linear, pooled and mlp heads, the latter with
dropout in its search space, 12 trials of each cell, 3 at a time, so that TPE and GP have learned from some.
Exits with 1 if any two differ in results.csv or trials.csv.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import emit
from benchmarks.faults import STUDY
from benchmarks.study_faults import SEARCH

CONCURRENT = (1, 4, 4)
TABLES = ("results.csv", "trials.csv")
SEARCHED: dict[str, Any] = {
    **{**SEARCH, "heads": ["linear", "pooled", "mlp"], "trials": 12},
    "search": ["learning_rate", "weight_decay", "dropout"],
}


def digests(folder: Path, sampler: str, number: int) -> dict[str, str]:
    """Of the tables of a study run by the command line in a folder of its own."""
    name = f"{sampler}_{number}"
    study = {
        **{**STUDY, "study": {**SEARCHED, "sampler": sampler}, "out": name},
        "ray": {"num_cpus": max(CONCURRENT), "concurrent_trials": CONCURRENT[number]},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "tapray", "report", f"{name}.yaml", "--progress", "quiet"]
    subprocess.run(command, cwd=folder, check=True)
    found = folder / name / "report"
    return {table: hashlib.sha256((found / table).read_bytes()).hexdigest() for table in TABLES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    samplers = ["grid", "random", "tpe", "gp"]
    parser.add_argument("--samplers", nargs="+", default=samplers, choices=samplers)
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for sampler in given.samplers:
            one, four, again = (digests(Path(name), sampler, number) for number in range(len(CONCURRENT)))
            rows[sampler] = {"same_from_1_and_4": one == four, "same_again": four == again, **one}
            print(sampler, rows[sampler], file=sys.stderr, flush=True)
    emit("study_identity", {"concurrent": CONCURRENT, "heads": SEARCHED["heads"], "samplers": rows})
    sys.exit(not all(row["same_from_1_and_4"] and row["same_again"] for row in rows.values()))


if __name__ == "__main__":
    main()
