"""What is lost when something dies while pretraining goes on? The kill matrix, run by `make test-faults`.

Each row trains the same small job through the command line, does its harm after half of the steps, runs the
same command again where the job has ended, and compares the kept net and every record of the log (loss and
accuracies to the last step) with those of the undisturbed job, bit by bit. Exits with 1 if any row loses
anything, or was not run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.common import emit

HARM_AT = 45  # of 90 steps, between two checkpoints
STUDY: dict[str, Any] = {
    "name": "faults",
    "out": "run",
    "simulate": {"n_movies": 3, "frames": 24, "height": 160, "width": 160, "n_nuclei": 12},
    "crops": {"size": 32, "crops_per_event": 2, "max_negatives": 60},
    "pretrain": {
        **{"preset": "unet-8s2", "size": 32, "batch": 32, "steps_per_epoch": 30, "epochs": 3},
        **{"val_batches": 2, "checkpoint_every": 20},
    },
    "study": {"budgets": [2]},
    "ray": {"num_cpus": 2},
}
# A job that has found the arrow at its end, and is long enough: Ray takes a minute to see a new node.
LEARNING: dict[str, Any] = {
    **{"name": "resized", "out": "run", "crops": {"size": 48, "crops_per_event": 4, "max_negatives": 100}},
    "simulate": {"n_movies": 8, "frames": 60, "light": 16},
    "pretrain": {
        **{"preset": "unet-12s2", "batch": 64, "sharpness": 1.0, "steps_per_epoch": 30, "epochs": 10},
        **{"val_batches": 16, "checkpoint_every": 20},
    },
    "study": {"budgets": [2]},
}
LEARNED = 0.6  # its accuracy on validation


class Command:
    """A command of tapray's on the study in a folder, in a session of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.errors = folder.with_suffix(".txt").open("w+")  # beside: the folder's disk may be full
        command = [sys.executable, "-m", "tapray", name, "study.yaml", "--progress", "quiet"]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,  # where Ray tells of a lost worker
            stderr=self.errors,
            start_new_session=True,
        )

    def children(self) -> list[psutil.Process]:
        """Every process that it has started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def named(self, part: str) -> list[psutil.Process]:
        """Those of its children that are called so."""
        return [child for child in self.children() if part in " ".join(child.cmdline())]


class Running(Command):
    """`tapray pretrain` in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("pretrain", folder)
        self.log = folder / "run" / "pretrain" / "log.jsonl"

    def records(self) -> list[dict[str, Any]]:
        """Of its log so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def step(self) -> int:
        """The last step on record."""
        records = self.records()
        return int(records[-1]["step"]) if records else 0

    def until(self, step: int, seconds: float = 240) -> None:
        """Waits for a record of that step or a later one."""
        deadline = time.monotonic() + seconds
        while self.step() < step:
            if self.process.poll() not in (None, 0) or time.monotonic() > deadline:
                raise RuntimeError(f"step {step} was not reached: {self.told()}")
            time.sleep(0.02)

    def version(self) -> int:
        """Of the log: whoever goes on from a checkpoint writes it anew."""
        return self.log.stat().st_ino

    def end(self, seconds: float = 240) -> int:
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"has not ended after {seconds:.0f} s: {self.told()}") from None

    def told(self) -> str:
        """The last line on standard error."""
        self.errors.flush()
        lines = Path(self.errors.name).read_text().strip().splitlines()
        return lines[-1] if lines else ""

    def workers(self) -> list[psutil.Process]:
        """Those that train."""
        return self.named("RayTrainWorker")


def kill_worker(running: Running, number: int) -> None:
    """One of the two is rank 0, which writes log and checkpoints."""
    running.workers()[number].kill()


def kill_often(running: Running) -> int:
    """More often than Ray restarts workers within a fit, a checkpoint apart; the last it goes on from."""
    resumed = 0
    for step in (HARM_AT, 65, 85):
        running.until(step)
        version = running.version()
        kill_worker(running, -1)
        resumed = _resumed_at(running.folder)
        while running.version() == version:
            time.sleep(0.02)
    return resumed


def kill_driver(running: Command) -> None:
    running.process.kill()


def kill_everything(running: Command) -> None:
    """As a power cut does."""
    for process in [*running.children(), psutil.Process(running.process.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def terminate(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)


def interrupt(running: Running) -> None:
    """As a terminal does: the whole process group has it."""
    os.killpg(running.process.pid, signal.SIGINT)


def fill_disk(running: Running) -> None:
    """To the last byte."""
    with (running.folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 9, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def fill_disk_for_a_while(running: Running) -> None:
    fill_disk(running)
    running.until(70)
    (running.folder / "filler").unlink()


# What is done, whether the job goes on by itself, and the exit status that it ends with otherwise.
ROWS: dict[str, tuple[Callable[[Running], int | None], int]] = {
    "worker killed": (partial(kill_worker, number=-1), 0),
    "other worker killed": (partial(kill_worker, number=0), 0),
    "worker killed three times": (kill_often, 0),
    "driver killed": (kill_driver, -signal.SIGKILL),
    "all processes killed": (kill_everything, -signal.SIGKILL),
    "SIGTERM (preemption)": (terminate, 130),
    "Ctrl-C": (interrupt, 130),
    "disk full for a while": (fill_disk_for_a_while, 0),
    "disk full to the end": (fill_disk, 2),
}


OF_THREE = "worker of three killed"  # gradients of more than two have several orders to be summed in
NAMES = [*ROWS, OF_THREE, "node lost", "node leaves", "node joins"]
SAVING = (terminate, interrupt)  # after these it must go on from where it was
TOLD = ("step", "loss", "arrow", "val_arrow", "rate")


def outcome(folder: Path) -> tuple[bytes, list[list[Any]]]:
    """The kept net, and what the log tells of every step on record but its speed."""
    stage = folder / "run" / "pretrain"
    lines = [json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()]
    return (stage / "model" / "tap.safetensors").read_bytes(), [[r.get(key) for key in TOLD] for r in lines]


def disturbed(folder: Path, harm: Callable[[Running], int | None], status: int) -> dict[str, Any]:
    """A row: the harm at HARM_AT, and what came of it."""
    running = Running(folder)
    running.until(HARM_AT)
    before, version, start = running.step(), running.version(), time.monotonic()
    told_at, ended = harm(running), None
    if status:
        ended = running.end()
        told = running.told()
        (folder / "filler").unlink(missing_ok=True)
        if ended != status:
            raise RuntimeError(f"exit status {ended} instead of {status}: {told}")
        time.sleep(1)  # Ray's own processes notice that they are alone
        running = Running(folder)
    resumed = _resumed_at(folder) if told_at is None else told_at
    while harm is not fill_disk_for_a_while and running.version() == version:
        time.sleep(0.02)  # what was left of the job may still write to the old log
    running.until(before + 1)
    recovered = time.monotonic() - start
    if running.end():
        raise RuntimeError(f"did not end well: {running.told()}")
    if harm in SAVING and resumed < before:
        raise RuntimeError(f"it was asked to save at step {before} and went on from {resumed}")
    record = {"at_step": before, "went_on_from": resumed, "seconds_to_recover": round(recovered, 1)}
    return {**record, "exit_status": ended, "command_again": status != 0}


def _resumed_at(folder: Path) -> int:
    saved = sorted((folder / "run" / "pretrain" / "checkpoints").glob("*/step_*.safetensors"))
    return int(saved[-1].stem.removeprefix("step_")) if saved else 0


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own in `folder`; whether that can be had here."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def node_lost(base: Path, folder: Path) -> dict[str, Any]:
    """A node of a running cluster dies with its worker, and another takes its place."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    prepared(base, folder, ray={"address": cluster.address})

    def lose(_: Running) -> None:
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)

    try:
        return disturbed(folder, lose, 0)
    finally:
        cluster.shutdown()


def one_of_three(base: Path, folder: Path) -> dict[str, Any]:
    """Compared with an undisturbed job of three workers."""
    alone = folder.with_name("undisturbed_three")
    for each in (alone, folder):
        prepared(base, each, ray={"num_cpus": 3, "train_workers": 3})
    if (running := Running(alone)).end():
        raise RuntimeError(running.told())
    record = disturbed(folder, partial(kill_worker, number=-1), 0)
    return {**record, "nothing_lost": outcome(folder) == outcome(alone)}


def resized(folder: Path, workers: int) -> dict[str, Any]:
    """A node comes to a running cluster, or leaves it: training goes on with so many `workers` instead.

    Ray looks for room once a minute. The weights are not those of one worker: each augments its own share.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1) if workers == 1 else None
    ray = {"address": cluster.address, "train_workers": [1, 2]}
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump({**LEARNING, "ray": ray}))  # from its movies on
    try:
        running = Running(folder)
        running.until(HARM_AT)
        before, start = running.step(), time.monotonic()
        if node is None:
            cluster.add_node(num_cpus=1)
        else:
            cluster.remove_node(node, allow_graceful=False)
        while running.records()[-1]["workers"] != workers:
            running.until(running.step() + 1)
        recovered = time.monotonic() - start
        if running.end(900):  # a longer job than the others
            raise RuntimeError(f"did not end well: {running.told()}")
    finally:
        cluster.shutdown()
    records = running.records()
    steps, settings = [record["step"] for record in records], LEARNING["pretrain"]
    total = settings["epochs"] * settings["steps_per_epoch"]
    return {
        "at_step": before,
        "from_step": next(record["step"] for record in records if record["workers"] == workers),
        "seconds_to_resize": round(recovered, 1),
        # slow steps are on record between the tens too
        "every_step_once": [step for step in steps if step % 10 == 0] == list(range(10, total + 1, 10))
        and steps == sorted(set(steps)),
        "val_arrow": records[-1]["val_arrow"],
        "learned": records[-1]["val_arrow"] > LEARNED,
    }


def prepared(base: Path, folder: Path, **sections: Any) -> None:
    """A copy of the job whose crops are cut already."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump({**STUDY, **sections}))


def row(name: str, base: Path, scratch: Path, expected: object) -> dict[str, Any]:
    folder = scratch / name.replace(" ", "_")
    if name in ("node joins", "node leaves"):
        return resized(folder, 2 if name == "node joins" else 1)
    if name == OF_THREE:
        return one_of_three(base, folder)
    if name == "node lost":
        record = node_lost(base, folder)
        return {**record, "nothing_lost": outcome(folder) == expected}
    harm, status = ROWS[name]
    with small_disk(folder) if "disk" in name else contextlib.nullcontext(True) as there:
        if not there:
            return {"not_run": "a file system of its own needs root", "nothing_lost": False}
        prepared(base, folder)
        record = disturbed(folder, harm, status)
        return {**record, "nothing_lost": outcome(folder) == expected}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", default=NAMES, choices=NAMES)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # Ray's workers would compile every import anew
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        base = scratch / "base"
        base.mkdir()
        (base / "study.yaml").write_text(yaml.safe_dump(STUDY))
        subprocess.run(
            [sys.executable, "-m", "tapray", "shard", "study.yaml", "--progress", "quiet"],
            cwd=base,
            check=True,
        )
        prepared(base, scratch / "undisturbed")
        start = time.monotonic()
        if (undisturbed := Running(scratch / "undisturbed")).end():
            raise RuntimeError(undisturbed.told())
        rows: dict[str, Any] = {"undisturbed": {"seconds": round(time.monotonic() - start, 1)}}
        expected = outcome(scratch / "undisturbed")
        for each in given.rows:
            try:
                rows[each] = row(each, base, scratch, expected)
            except RuntimeError as error:
                rows[each] = {"failed": str(error), "nothing_lost": False}
            print(each, rows[each], file=sys.stderr, flush=True)
    emit("faults", rows)
    kept = [
        record.get(fact, True)
        for record in rows.values()
        for fact in ("nothing_lost", "every_step_once", "learned")
    ]
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
