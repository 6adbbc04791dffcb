"""What is lost when something dies while a study goes on? The second half of `make test-faults`.

    python -m benchmarks.study_faults

Each row runs the same small study from the same pretrained net through the command line, with the random
sampler and linear and pooled heads, does its harm once it is due, removes what the row says, runs the same
command again where the job has ended, and compares results.csv and trials.csv with those of the undisturbed
study, byte by byte. MLflow must hold each trial and run once, and no record that was there after the harm may
be made anew: not by the command that goes on, nor by one that is given when all is done. Exits with 1 if any
row loses or doubles anything.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.common import emit
from benchmarks.faults import STUDY, Command, kill_driver, kill_everything

SEARCH: dict[str, Any] = {
    **{"inits": ["tap", "random_default", "end_to_end"], "heads": ["linear", "pooled"], "budgets": [2, 3]},
    **{"seeds": 4, "trials": 6, "together": 3, "steps": 60, "steps_trained": 10, "random_draws": 2},
}
TRIALS, RUNS = 3 * 2 * 2 * 6, 3 * 2 * 2 * 4
COMPARED = ("results.csv", "trials.csv")
CACHED = "cache/features"
BEGUN = 1 << 16  # bytes of an array on the disk: one that is blank has two pages


class Running(Command):
    """`tapray report` in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("report", folder)

    def records(self) -> dict[str, int]:
        """The files of trials and runs on record, and when each was written."""
        paths = (self.folder / "run" / "study").glob("*s-*.json")
        return {path.name: path.stat().st_mtime_ns for path in paths}

    def stages(self) -> set[str]:
        """Those that are done."""
        return {path.parent.name for path in (self.folder / "run").glob("*/done.json")}

    def progress(self) -> int:
        """Grows with every record and stage."""
        return len(self.records()) + len(self.stages())

    def until(self, due: Callable[[Running], bool], seconds: float = 300) -> None:
        """Waits for something to be so."""
        deadline = time.monotonic() + seconds
        while not due(self):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"what was waited for did not come: {self.told()}")
            time.sleep(0.005)

    def end_well(self) -> None:
        if self.process.wait(900):
            raise RuntimeError(f"did not end well: {self.told()}")

    def told(self) -> str:
        self.errors.flush()
        return Path(self.errors.name).read_text().strip()[-300:]

    def workers(self) -> list[psutil.Process]:
        return self.named("ImplicitFunc")


def kill_worker(running: Running) -> None:
    running.workers()[0].kill()


def interrupt(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)


def on_record(works: int) -> Callable[[Running], bool]:
    return lambda running: len(running.records()) >= works


def writing_features(running: Running) -> bool:
    """Whether the first crops are in one of the arrays that are still being filled."""
    with contextlib.suppress(FileNotFoundError):
        blanks = (running.folder / CACHED).glob(".*.npy")
        return any(512 * blank.stat().st_blocks > BEGUN for blank in blanks)
    return False


def calibrating(running: Running) -> bool:
    return (running.folder / "run" / ".begun-calibrate").exists()


@dataclass(frozen=True)
class Fault:
    """When and in which stage it comes, what is done, and the job's exit status, 0 if it goes on by itself.

    before, after: folders that are removed before the job, and before the command is given again.
    """

    due: Callable[[Running], bool]
    harm: Callable[[Any], None]
    status: int
    stage: str = "study"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


KILLED = -signal.SIGKILL
ROWS = {
    "driver killed while features are written": Fault(
        writing_features, kill_driver, KILLED, "features", before=(CACHED, "run/features")
    ),
    "worker killed while searching": Fault(on_record(3), kill_worker, 0),
    "driver killed while searching": Fault(on_record(3), kill_driver, KILLED),
    "all processes killed while searching": Fault(on_record(6), kill_everything, KILLED),
    "driver killed in the final runs": Fault(on_record(45), kill_driver, KILLED),
    "Ctrl-C in the final runs": Fault(on_record(45), interrupt, 130),
    "all processes killed while calibrating, and no features left": Fault(
        calibrating, kill_everything, KILLED, "calibrate", after=(CACHED,)
    ),
}


def logged(folder: Path) -> dict[str, int]:
    """How many trials and runs MLflow holds as finished, how many not, and how many names twice."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as store:
        told = store.execute("select name, status from runs where lifecycle_stage = 'active'").fetchall()
    own = [(name, status) for name, status in told if name.startswith(("trial ", "run "))]
    finished = sum(status == "FINISHED" for _, status in own)
    names = {name for name, _ in own}
    return {"logged": finished, "unfinished": len(own) - finished, "doubled": len(own) - len(names)}


def row(base: Path, folder: Path, fault: Fault) -> dict[str, Any]:
    shutil.copytree(base, folder)
    for path in fault.before:
        shutil.rmtree(folder / path)
    running = Running(folder)
    running.until(fault.due)
    start = time.monotonic()
    fault.harm(running)
    if fault.status and (ended := running.process.wait(300)) != fault.status:
        raise RuntimeError(f"exit status {ended} instead of {fault.status}: {running.told()}")
    if fault.stage in running.stages():
        raise RuntimeError(f"the stage {fault.stage} was over before the harm")
    if fault.status:
        time.sleep(1)
    kept, before = running.records(), running.progress()
    for path in fault.after:
        shutil.rmtree(folder / path)
    if fault.status:
        running = Running(folder)
    running.until(lambda running: running.progress() > before)
    recovered = time.monotonic() - start
    running.end_well()
    found = {"works_kept": len(kept), "seconds_to_recover": round(recovered, 1), **logged(folder)}
    whole = running.records()
    Running(folder).end_well()
    again = running.records()
    return {**found, "kept_as_they_were": kept.items() <= whole.items(), "done_is_done": whole == again}


def tables(folder: Path) -> list[bytes]:
    return [(folder / "run" / "report" / name).read_bytes() for name in COMPARED]


def prepared(base: Path) -> None:
    """A job with features and without a store: each row has one of its own."""
    base.mkdir()
    study = {**STUDY, "study": SEARCH, "ray": {"num_cpus": 2}}
    (base / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "tapray", "features", "study.yaml", "--progress", "quiet"]
    subprocess.run(command, cwd=base, check=True)
    (base / "mlflow.db").unlink()


def intact(record: dict[str, Any]) -> bool:
    """Whether nothing was lost or doubled."""
    same = all(record.get(name, True) for name in ("same_tables", "kept_as_they_were", "done_is_done"))
    return same and record.get("logged") == TRIALS + RUNS and not (record["doubled"] or record["unfinished"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[*ROWS], choices=[*ROWS])
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name:
        scratch, alone = Path(name), Path(name) / "undisturbed"
        prepared(scratch / "base")
        shutil.copytree(scratch / "base", alone)
        start = time.monotonic()
        Running(alone).end_well()
        rows: dict[str, Any] = {
            "undisturbed": {"seconds": round(time.monotonic() - start, 1), **logged(alone)}
        }
        for each in given.rows:
            folder = scratch / each.replace(" ", "_")
            try:
                rows[each] = row(scratch / "base", folder, ROWS[each])
                rows[each]["same_tables"] = tables(folder) == tables(alone)
            except RuntimeError as error:
                rows[each] = {"failed": str(error)}
            print(each, json.dumps(rows[each]), file=sys.stderr, flush=True)
    emit("study_faults", rows)
    sys.exit(not all(map(intact, rows.values())))


if __name__ == "__main__":
    main()
