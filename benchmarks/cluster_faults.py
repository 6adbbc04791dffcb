"""What is lost when a cluster's machines, links and services die? Run by `make test-cluster`, as root.

Three machines (network namespaces) run Ray with token authentication, a head without work of its own, with
Redis behind it, and two workers; a fourth runs PostgreSQL, MLflow's server and an object store. Every row
submits a study from outside through the job API, does its harm in the middle, makes sure that it was felt,
and compares results.csv with that of a local run, byte by byte; MLflow must hold each trial and run once, and
the study is sent again by hand only where its disk is gone or full. In the end no secret may be found in what
was left. Exits with 1 where any of this fails or half an hour is over, with 2 where something that it needs
is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import emit
from benchmarks.hosts import network, sh
from benchmarks.services import BUCKET, missing, until
from benchmarks.stack import Stack

LIMIT_S = 1800  # of all rows


@dataclass(frozen=True)
class Row:
    """Some harm, and what shows that it was felt: what who submits is told, and how many jobs it took."""

    harm: Callable[[Stack, Path], None]
    told: str = ""
    jobs: int = 1
    by_hand: bool = False  # else `tapray submit --wait` sees the job to its end by itself


ROWS: dict[str, Row] = {}


def row(**what: Any) -> Callable[[Callable[[Stack, Path], None]], Callable[[Stack, Path], None]]:
    def add(harm: Callable[[Stack, Path], None]) -> Callable[[Stack, Path], None]:
        ROWS[harm.__name__.replace("_", " ")] = Row(harm, **what)
        return harm

    return add


def stepped(out: Path, step: int = 20) -> None:
    """Waits until pretraining has come so far; RuntimeError if it is over by then."""
    log = out / "pretrain" / "log.jsonl"
    until(lambda: log.exists() and f'"step": {step}' in log.read_text(), f"step {step}", 300)
    _goes_on(out / "pretrain")


def searching(out: Path) -> None:
    """Waits until the study is under way; RuntimeError if it is over by then."""
    until(lambda: len([*(out / "study").glob("*s-*.json")]) > 1, "the study", 400)
    _goes_on(out / "study")


def _goes_on(stage: Path) -> None:
    if (stage / "done.json").exists():
        raise RuntimeError(f"{stage.name} was over before any harm was done")


@row()
def undisturbed(stack: Stack, out: Path) -> None:
    """Nothing happens."""


@row()
def node_that_trains_killed(stack: Stack, out: Path) -> None:
    stepped(out)
    lost = stack.training()
    stack.dies(lost)
    stack.start_worker(lost)


@row()
def link_of_the_node_that_trains_cut(stack: Stack, out: Path) -> None:
    stepped(out)
    lost = stack.training()
    lost.cut()
    until(lambda: stack.machines() == 2, "the loss", 120)
    lost.mend()
    stack.back(lost)


@row(told="sent again", jobs=2)
def head_killed(stack: Stack, out: Path) -> None:
    searching(out)
    stack.head.kill()
    time.sleep(5)
    stack.start_head()


@row()
def mlflow_restarted(stack: Stack, out: Path) -> None:
    searching(out)
    stack.services.kill_mlflow()
    time.sleep(10)
    stack.services.start_mlflow()


@row(told="o space", jobs=2, by_hand=True)
def disk_full(stack: Stack, out: Path) -> None:
    """Until the job has failed; then it is submitted again."""
    stepped(out)
    filler = stack.shared / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
    except OSError:
        until(lambda: [status for _, status in stack.jobs(out)] == ["FAILED"], "the end of the job", 300)
    finally:
        filler.unlink()


@row(told="taken from s3://", jobs=2, by_hand=True)
def run_folder_lost(stack: Stack, out: Path) -> None:
    """The job is stopped and its disk is lost; the mirror in the object store has all that it had."""
    searching(out)
    running = next(name for name, status in stack.jobs(out) if status == "RUNNING")
    stack.tapray("jobs", "stop", running)
    until(lambda: (running, "STOPPED") in stack.jobs(out), "the stop", 120)
    shutil.rmtree(out)


def longer(study: Path) -> dict[str, Any]:
    """A study with pretraining long enough to be disturbed."""
    given: dict[str, Any] = yaml.safe_load(study.read_text())
    pretrain = given["pretrain"]
    steps = max(pretrain["steps_per_epoch"] * pretrain["epochs"], 60)
    if steps == 60:
        given["pretrain"] = {**pretrain, "steps_per_epoch": 30, "epochs": 2, "checkpoint_every": 10}
    return given


def results(out: Path) -> bytes:
    return (out / "report" / "results.csv").read_bytes()


def logged(stack: Stack, experiment: str) -> dict[str, int]:
    """How many trials and runs MLflow holds as finished, and how many runs of any kind more than once."""
    records = stack.services.records(experiment)
    finished = [each for each in records if each["status"] == "FINISHED"]
    names = [each["name"] for each in finished if each["name"].startswith(("trial ", "run "))]
    return {"logged": len(names), "doubled": len(records) - len({each["identity"] for each in records})}


def tried(stack: Stack, name: str, base: Path, expected: bytes) -> dict[str, Any]:
    out = stack.shared / name.replace(" ", "_")
    study = out.with_suffix(".yaml")
    own = {
        "tracking": {"experiment": name},
        "mirror": f"s3://{BUCKET}/{out.name}",
        "cache": {"folder": str(out.with_suffix(".cache"))},  # else the first row would pretrain for all
        "ray": {"train_workers": 1, "max_failures": 5},  # machines die more often here than elsewhere
    }
    study.write_text(yaml.safe_dump({**longer(base), **own}))
    until(lambda: stack.machines() == 3, "the cluster", 180)
    start, again = time.monotonic(), 0
    job = stack.submit(study, out, "--wait")
    try:
        ROWS[name].harm(stack, out)
        while job.wait(900) and again < 2:
            again += 1
            job = stack.submit(study, out, "--wait")
    finally:
        job.kill()
    seconds, told = round(time.monotonic() - start, 1), stack.log(out).read_text()
    if job.wait():
        raise RuntimeError(told[-600:])
    jobs = len(stack.jobs(out))
    felt = ROWS[name].told in told and jobs >= ROWS[name].jobs
    same = results(out) == expected
    figures = {"seconds": seconds, "submitted_again": again, "jobs": jobs, "harm_felt": felt}
    return {**figures, "same_results": same, **logged(stack, name)}


def sound(name: str, figures: dict[str, Any], count: int) -> bool:
    """Whether a row shows that nothing was lost or doubled, of what harm was done, with no hand lent."""
    whole = figures.get("same_results") and figures["logged"] == count and not figures["doubled"]
    return bool(whole and figures["harm_felt"] and (ROWS[name].by_hand or not figures["submitted_again"]))


def local(base: Path, scratch: Path) -> tuple[bytes, int]:
    """The results of a run without a cluster, and how many trials and runs there are."""
    out = scratch / "local" / "run"
    study = longer(base)
    path = scratch / "local.yaml"
    path.write_text(yaml.safe_dump({**study, "ray": {"train_workers": 1}}))
    command = [sys.executable, "-m", "tapray", "run", str(path), "--out", str(out), "--progress", "quiet"]
    subprocess.run(command, check=True)
    count = sum(len(json.loads(file.read_text())) for file in (out / "study").glob("*s-*.json"))
    return results(out), count


def all_rows(stack: Stack, names: list[str], base: Path, expected: bytes) -> dict[str, Any]:
    """The figures of each row; one that fails, in whatever way, leaves the others their turn."""
    rows = dict[str, Any]()
    stack.start()
    for name in names:
        try:
            rows[name] = tried(stack, name, base, expected)
        except Exception as error:
            rows[name] = {"failed": f"{type(error).__name__}: {error}"}
            try:
                stack.again()
            except Exception as also:
                rows[name]["failed"] += f"; the cluster did not come back ({also})"
        print(name, json.dumps(rows[name]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[*ROWS], choices=[*ROWS])
    parser.add_argument("--study", type=Path, default=Path("studies/tiny.yaml"), help="one that simulates")
    given = parser.parse_args()
    if fault := missing():
        print(f"test-cluster: {fault}", file=sys.stderr)
        sys.exit(2)
    for name in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, network():
        scratch = Path(folder)
        scratch.chmod(0o755)
        expected, count = local(given.study, scratch)
        stack = Stack(scratch)
        try:
            rows = all_rows(stack, given.rows, given.study, expected)
            leaks = sorted(stack.leaks())
        finally:
            for host in (*stack.workers, stack.head, stack.services.host):
                host.kill()
            if stack.shared.is_mount():
                sh(f"umount -l {stack.shared}")
    total = round(time.monotonic() - start)
    emit("cluster_faults", {"trials_and_runs": count, "total_s": total, "secrets_found": leaks, **rows})
    held = [sound(name, figures, count) for name, figures in rows.items()]
    sys.exit(not all([*held, not leaks, total <= LIMIT_S]))


if __name__ == "__main__":
    main()
