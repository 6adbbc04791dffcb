"""Looks, before anything is worked on, whether a cluster has what a job needs on each of its machines."""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import tapray
from tapray.config import JobConfig
from tapray.distributed.cluster import check_resources
from tapray.errors import UserError, damage
from tapray.locations import exists
from tapray.stores import reach

CLIENT = "TAPRAY_CLIENT"  # environment variable: the versions where the job was submitted, as JSON
ANSWER_S = 180  # a machine may have to fetch the code first


def versions() -> dict[str, str]:
    """Of what must be the same where a job is submitted and on every machine that works on it."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"tapray": tapray.__version__, "Python": python, "Ray": version("ray")}


@dataclass(frozen=True)
class Needs:
    """What every machine must have: versions, the run folder, files to read, the tracking store."""

    versions: Mapping[str, str]
    folder: Path
    inputs: Sequence[Path]
    tracking: str


def preflight(config: JobConfig, folder: Path, tracking: str, *, trains: bool = True) -> int:
    """Checks every machine of the cluster that was joined; returns how many there are.

    Args:
        folder: the run folder, which this process has made already; tracking: address of the store.
        trains: whether the job will pretrain.

    Raises:
        UserError: the first fault, with the machines that have it; nothing has been started.
    """
    notes = [note.path for movie in config.movies for note in movie.annotations]
    given = [path for path in (config.pretrain.weights, config.study.imagenet) if path is not None]
    inputs = [*(movie.path for movie in config.movies), *notes, *given]
    told = os.environ.get(CLIENT)
    needs = Needs(json.loads(told) if told else versions(), folder.resolve(), inputs, tracking)
    if trains and config.pretrain.weights is None:
        check_resources(config)
    note = folder / f".preflight-{uuid.uuid4().hex[:12]}"
    note.write_text(note.name)
    try:
        faults = _ask(needs, note)
    finally:
        for path in folder.glob(f"{note.name}*"):
            path.unlink(missing_ok=True)
    for message in dict.fromkeys(message for own in faults.values() for message in own):
        having = [machine for machine, own in faults.items() if message in own]
        more = f" and {len(having) - 3} more" if len(having) > 3 else ""
        raise UserError(message, where=f"machine {', '.join(having[:3])}{more}")
    return len(faults)


def _ask(needs: Needs, note: Path) -> dict[str, list[str]]:
    """The faults of each machine, by address."""
    listed = ray.nodes()  # type: ignore[no-untyped-call]  # Ray has no type here
    machines = {node["NodeID"]: node["NodeManagerAddress"] for node in listed if node["Alive"]}
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    asked = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            needs, note.name, node
        )
        for node in machines
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
    faults: dict[str, list[str]] = {}
    for node, answer in asked.items():
        try:
            own = ray.get(answer, timeout=1)
            seen = note.with_name(f"{note.name}-{node}").exists()  # what was written there is here too
            faults[machines[node]] = own if own or seen else [str(_not_shared(needs.folder))]
        except (ray.exceptions.RayError, TimeoutError) as error:
            reason = str(error).strip().partition("\n")[0] or f"no answer in {ANSWER_S} s"
            fault = UserError(f"cannot run a task ({reason})", todo="look at the logs of Ray there")
            faults[machines[node]] = [str(fault)]
    left = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return {machine: own for machine, own in faults.items() if machine in left}


def _look(needs: Needs, note: str, node: str) -> list[str]:
    """The faults of a machine, as lines; runs there."""
    return [str(fault) for fault in _faults(needs, note, node)]


def _faults(needs: Needs, note: str, node: str) -> Iterator[UserError]:
    own = versions()
    for name, wanted in needs.versions.items():
        if own[name] != wanted:
            what = f"{name} is {own[name]} there and {wanted} where the job comes from"
            yield UserError(what, todo="use the same versions everywhere")
    try:
        if (needs.folder / note).read_text() == note:
            (needs.folder / f"{note}-{node}").write_text(note)
    except FileNotFoundError:
        yield _not_shared(needs.folder)
    except OSError as error:
        todo = "let the user that Ray runs as write there"
        yield UserError(f"cannot be written to ({error.strerror})", where=needs.folder, todo=todo)
    for path in needs.inputs:
        try:
            with damage(path, "address"):
                if not exists(path):
                    raise UserError("is not there", where=path, todo="put it where every machine reaches it")
        except UserError as fault:
            yield fault
    try:
        reach(needs.tracking)
    except UserError as fault:
        yield fault


def _not_shared(folder: Path) -> UserError:
    todo = "name an out on storage that all machines mount"
    return UserError("is not one and the same folder on every machine", where=folder, todo=todo)
