"""Does a study give the same results.csv from 1 and from 4 trials at a time, and again? Byte by byte.

One small job is simulated, pretrained and embedded once; then the study of each sampler is run from the same
features with 1 and with 4 concurrent trials: 12 trials of each cell, 3 at a time, so that TPE and GP have
learned from some. Exits with 1 if any two differ.
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

CONCURRENT = (1, 4)
TABLES = ("results.csv", "trials.csv")


def digests(folder: Path, sampler: str, concurrent: int) -> dict[str, str]:
    """Of the tables of a study run by the command line in a folder of its own."""
    ray = {"num_cpus": max(CONCURRENT), "concurrent_trials": concurrent}
    study = {
        **STUDY,
        "study": {**SEARCH, "trials": 12, "sampler": sampler},
        "ray": ray,
        "out": f"{sampler}_{concurrent}",
    }
    path = folder / f"{sampler}_{concurrent}.yaml"
    path.write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "tapray", "report", path.name, "--progress", "quiet"]
    subprocess.run(command, cwd=folder, check=True)
    found = folder / study["out"] / "report"
    return {name: hashlib.sha256((found / name).read_bytes()).hexdigest() for name in TABLES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    samplers = ["grid", "random", "tpe", "gp"]
    parser.add_argument("--samplers", nargs="+", default=samplers, choices=samplers)
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for sampler in given.samplers:
            found = [digests(Path(name), sampler, concurrent) for concurrent in CONCURRENT]
            rows[sampler] = {"same": found[0] == found[1], **found[0]}
            print(sampler, rows[sampler], file=sys.stderr, flush=True)
    emit("study_identity", {"concurrent": CONCURRENT, "samplers": rows})
    sys.exit(not all(row["same"] for row in rows.values()))


if __name__ == "__main__":
    main()
