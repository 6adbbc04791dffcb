"""Looks, before anything is worked on, whether a cluster has what a job needs on each of its machines."""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import tapray
from tapray.config import JobConfig
from tapray.distributed.cluster import GROWTH, check_resources
from tapray.errors import UserError, damage
from tapray.locations import exists
from tapray.stores import reach

CLIENT = "TAPRAY_CLIENT"  # environment variable: the versions where the job was submitted, as JSON
ANSWER_S = 180  # a machine may have to fetch the code first
START_S = 1200  # a cloud may have to find a machine, and the machine to fetch the image


def versions() -> dict[str, str]:
    """Of what must be the same where a job is submitted and on every machine that works on it."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"tapray": tapray.__version__, "Python": python, "Ray": version("ray")}


def _packages() -> dict[str, str]:
    """Of what must be the same on every machine; builds for processors and for GPUs go together."""
    torch = version("torch").partition("+")[0]
    return {**versions(), "PyTorch": torch, "MLflow": version("mlflow")}


@dataclass(frozen=True)
class Needs:
    """What every machine must have: versions, shared folders, files to read, the tracking store."""

    versions: Mapping[str, str]
    folders: Sequence[Path]
    inputs: Sequence[Path]
    tracking: str


@dataclass(frozen=True)
class Seen:
    """What a machine says of itself: its node's id and address, and what is wrong there, in lines."""

    node: str
    address: str
    faults: Sequence[str]


def preflight(config: JobConfig, folder: Path, tracking: str, *, trains: bool = True) -> int:
    """Checks every machine of the cluster that was joined; returns how many there are.

    Where machines come only when there is work, one is made to come.

    Args:
        folder: the run folder, which this process has made already; tracking: address of the store.
        trains: whether the job will pretrain.

    Raises:
        UserError: the first fault, with the machines that have it; nothing has been started.
    """
    notes = [note.path for movie in config.movies for note in movie.annotations]
    given = [path for path in (config.pretrain.weights, config.study.imagenet) if path is not None]
    inputs = [*(movie.path for movie in config.movies), *notes, *given]
    told = json.loads(os.environ.get(CLIENT, "{}"))
    cache = config.cache.folder or folder.parent / "cache"
    needs = Needs({**_packages(), **told}, [folder.resolve(), cache.resolve()], inputs, tracking)
    trains = trains and config.pretrain.weights is None
    if trains:
        check_resources(config)
    with _noted(needs.folders) as note:
        seen = _ask(needs, note)
        _sound(seen)
        if os.environ.get(GROWTH):
            seen |= _started(needs, note, int(trains and config.ray.use_gpu))
            _sound(seen)
    return len(seen)


def _sound(seen: Mapping[str, Seen]) -> None:
    """Raises the first fault."""
    for message in (fault for own in seen.values() for fault in own.faults):
        having = [own.address for own in seen.values() if message in own.faults]
        more = f" and {len(having) - 3} more" if len(having) > 3 else ""
        raise UserError(message, where=f"machine {', '.join(having[:3])}{more}")


@contextmanager
def _noted(folders: Sequence[Path]) -> Iterator[str]:
    """A note of that name is in each folder in the block, then gone with what machines write beside it."""
    note, made = f".preflight-{uuid.uuid4().hex[:12]}", [path for path in folders if not path.exists()]
    try:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / note).write_text(note)
            except OSError as error:
                raise _not_writable(folder, error) from None
        yield note
    finally:
        for path in [path for folder in folders for path in folder.glob(f"{note}*")]:
            path.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _alive() -> dict[str, str]:
    """The addresses of all machines, by the id of the node."""
    listed = ray.nodes()  # type: ignore[no-untyped-call]  # Ray has no type here
    return {node["NodeID"]: node["NodeManagerAddress"] for node in listed if node["Alive"]}


def _ask(needs: Needs, note: str) -> dict[str, Seen]:
    """What each machine that is there says, by the id of the node."""
    machines = _alive()
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    asked = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            needs, note
        )
        for node in machines
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
    seen: dict[str, Seen] = {}
    for node, answer in asked.items():
        try:
            seen[node] = _shared(ray.get(answer, timeout=1), needs, note)
        except (ray.exceptions.RayError, TimeoutError) as error:
            seen[node] = Seen(node, machines[node], [_no_task(error)])
    left = _alive()
    return {node: own for node, own in seen.items() if node in left}


def _started(needs: Needs, note: str, gpus: int) -> dict[str, Seen]:
    """What a machine says that has a processor free, and so many GPUs; one is started where there is none."""
    look = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=2)(_look)
    answer = look.remote(needs, note)
    try:
        own = _shared(ray.get(answer, timeout=START_S), needs, note)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(answer, force=True)
        what = f"no machine with a free {'GPU' if gpus else 'processor'} has come within {START_S} s"
        raise UserError(what, where=GROWTH, todo="see on the head what `ray status` says") from None
    except ray.exceptions.RayError as error:
        own = Seen("", "that was started", [_no_task(error)])
    return {own.node: own}


def _shared(own: Seen, needs: Needs, note: str) -> Seen:
    """With the fault that what a machine has written is not here; to be asked where the job is."""
    if own.faults:
        return own
    apart = [path for path in needs.folders if not (path / f"{note}-{own.node}").exists()]
    return replace(own, faults=[str(_not_shared(path)) for path in apart])


def _look(needs: Needs, note: str) -> Seen:
    """Runs on a machine."""
    node = ray.get_runtime_context().get_node_id()
    faults = [str(fault) for fault in _faults(needs, note, node)]
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray has no type here
    return Seen(node, address, faults)


def _faults(needs: Needs, note: str, node: str) -> Iterator[UserError]:
    own = _packages()
    for name, wanted in needs.versions.items():
        if own[name] != wanted:
            what = f"{name} is {own[name]} there and {wanted} where the job comes from"
            yield UserError(what, todo="use the same versions everywhere")
    for folder in needs.folders:
        try:
            if (folder / note).read_text() == note:
                (folder / f"{note}-{node}").write_text(note)
        except FileNotFoundError:
            yield _not_shared(folder)
        except OSError as error:
            yield _not_writable(folder, error)
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
    todo = "name one on storage that all machines mount"
    return UserError("is not one and the same folder on every machine", where=folder, todo=todo)


def _not_writable(folder: Path, error: OSError) -> UserError:
    todo = "let the user that Ray runs as write there"
    return UserError(f"cannot be written to ({error.strerror})", where=folder, todo=todo)


def _no_task(error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0] or f"no answer in {ANSWER_S} s"
    return str(UserError(f"cannot run a task ({reason})", todo="look at the logs of Ray there"))
