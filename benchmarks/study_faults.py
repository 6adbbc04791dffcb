"""What is lost when something dies while a study goes on? The second half of `make test-faults`.

Each row runs the same small study from the same pretrained net through the command line, does its harm once
some trials or runs are on record, runs the same command again where the job has ended, and compares
results.csv and trials.csv with those of the undisturbed study, byte by byte; MLflow must hold each trial and
run once. Exits with 1 if any row loses or doubles anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.common import emit
from benchmarks.faults import STUDY, kill_everything

SEARCH: dict[str, Any] = {
    **{"inits": ["tap", "random_default", "end_to_end"], "heads": ["linear", "pooled"], "budgets": [2, 3]},
    **{"seeds": 4, "trials": 6, "together": 3, "steps": 60, "steps_trained": 10, "random_draws": 2},
}
TRIALS, RUNS = 3 * 2 * 2 * 6, 3 * 2 * 2 * 4
COMPARED = ("results.csv", "trials.csv")


class Running:
    """`tapray report` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors = folder.with_suffix(".txt").open("w+")
        command = [sys.executable, "-m", "tapray", "report", "study.yaml", "--progress", "quiet"]
        self.process = subprocess.Popen(command, cwd=folder, stderr=self.errors, start_new_session=True)

    def records(self) -> int:
        """Trials and runs on record."""
        return len([*(self.folder / "run" / "study").glob("*s-*.json")])

    def until(self, works: int, seconds: float = 300) -> None:
        """Waits for so many files of records."""
        deadline = time.monotonic() + seconds
        while self.records() < works:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{works} records were not reached: {self.told()}")
            time.sleep(0.01)

    def told(self) -> str:
        self.errors.flush()
        return Path(self.errors.name).read_text().strip()[-300:]

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "ImplicitFunc" in " ".join(child.cmdline())]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def kill_worker(running: Running) -> None:
    running.workers()[0].kill()


def kill_driver(running: Running) -> None:
    running.process.kill()


def interrupt(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)


# When (works on record), what is done, and the exit status the job ends with, 0 if it goes on by itself.
ROWS: dict[str, tuple[int, Callable[[Any], None], int]] = {
    "worker killed while searching": (3, kill_worker, 0),
    "driver killed while searching": (3, kill_driver, -signal.SIGKILL),
    "all processes killed while searching": (6, kill_everything, -signal.SIGKILL),
    "driver killed in the final runs": (45, kill_driver, -signal.SIGKILL),
    "Ctrl-C in the final runs": (45, interrupt, 130),
}


def logged(folder: Path) -> dict[str, int]:
    """How many trials and runs MLflow holds as finished, how many not, and how many names twice."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        told = store.execute("select name, status from runs where lifecycle_stage = 'active'").fetchall()
    own = [(name, status) for name, status in told if name.startswith(("trial ", "run "))]
    finished = sum(status == "FINISHED" for _, status in own)
    names = {name for name, _ in own}
    return {"logged": finished, "unfinished": len(own) - finished, "doubled": len(own) - len(names)}


def row(base: Path, folder: Path, when: int, harm: Callable[[Any], None], status: int) -> dict[str, Any]:
    shutil.copytree(base, folder)
    running = Running(folder)
    running.until(when)
    start = time.monotonic()
    harm(running)
    if status:
        ended = running.process.wait(300)
        if ended != status:
            raise RuntimeError(f"exit status {ended} instead of {status}: {running.told()}")
        kept = running.records()
        time.sleep(1)
        running = Running(folder)
    else:
        kept = running.records()
    running.until(kept + 1)
    recovered = time.monotonic() - start
    if running.process.wait(900):
        raise RuntimeError(f"did not end well: {running.told()}")
    return {"works_kept": kept, "seconds_to_recover": round(recovered, 1), **logged(folder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[*ROWS], choices=[*ROWS])
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        base = scratch / "base"
        base.mkdir()
        study = {**STUDY, "study": SEARCH, "ray": {"num_cpus": 2}}
        (base / "study.yaml").write_text(yaml.safe_dump(study))
        command = [sys.executable, "-m", "tapray", "features", "study.yaml", "--progress", "quiet"]
        subprocess.run(command, cwd=base, check=True)
        (base / "mlflow.db").unlink()  # each row has a store of its own
        shutil.copytree(base, scratch / "undisturbed")
        start = time.monotonic()
        if (undisturbed := Running(scratch / "undisturbed")).process.wait(900):
            raise RuntimeError(undisturbed.told())
        rows: dict[str, Any] = {"undisturbed": {"seconds": round(time.monotonic() - start, 1)}}
        rows["undisturbed"] |= logged(scratch / "undisturbed")
        expected = [(scratch / "undisturbed" / "run" / "report" / each).read_bytes() for each in COMPARED]
        for each in given.rows:
            folder = scratch / each.replace(" ", "_")
            try:
                rows[each] = row(base, folder, *ROWS[each])
                found = [(folder / "run" / "report" / name).read_bytes() for name in COMPARED]
                rows[each]["same_tables"] = found == expected
            except RuntimeError as error:
                rows[each] = {"failed": str(error), "same_tables": False}
            print(each, json.dumps(rows[each]), file=sys.stderr, flush=True)
    emit("study_faults", rows)
    whole = all(record.get("same_tables", True) for record in rows.values())
    once = all(record.get("logged") == TRIALS + RUNS for record in rows.values())
    beyond = any(record.get("doubled") or record.get("unfinished") for record in rows.values())
    sys.exit(not (whole and once and not beyond))


if __name__ == "__main__":
    main()
