"""Connects to Ray: a local cluster for this job, or one that runs already."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tapray.atomic import FULL_DISK
from tapray.config import JobConfig, RayConfig, TrackingConfig
from tapray.errors import UserError

# Set before ray is imported: each takes seconds off or silences what is not ours to show.
_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # 2 s: end and faults are seen late; 0.2 s: busy on few cores
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "900",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "900",  # a cluster that scales itself has to start machines
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see interruptible
}
GROWTH = "TAPRAY_CAN_GROW"  # environment variable: resources of all machines that may be started
# These announce plans and settings amid the progress, and write tracebacks of what they raise anyhow.
_CHATTY = ("ray.data", "ray.train", "ray.tune")
_WORKERS = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@contextmanager
def session(config: RayConfig) -> Iterator[None]:
    """A Ray session for the duration of the block; an existing one is used and left running.

    A UserError that a worker raised leaves the block as that error and not as Ray's, and so does a full disk.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray
    import ray.data  # first: its import sets up its logger

    # Its own wrapper would lose the cause on the way from a worker.
    ray.data.DataContext.get_current().raise_original_map_exception = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ours = not ray.is_initialized()
    if ours:
        _connect(config)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminated) if main else None  # Ray's own leaves without a word
    try:
        yield
    except Exception as error:
        fault = user_fault(error)
        if fault is None or fault is error:
            raise
        raise fault from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
        if ours:
            ray.shutdown()


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt


def joined(config: RayConfig) -> str | None:
    """The address of the cluster to join; None: one of its own is started for the job.

    Ray sets RAY_ADDRESS for what is submitted to a cluster, so the same study runs there unchanged.
    """
    return config.address or os.environ.get("RAY_ADDRESS") or None


def capacity(kind: str) -> float:
    """How many of a resource ("CPU", "GPU") the cluster has, or may grow to where it scales itself.

    The latter is what the variable TAPRAY_CAN_GROW says, such as CPU=64,GPU=4: Ray does not tell.
    """
    import ray

    have = ray.cluster_resources().get(kind, 0.0)  # type: ignore[no-untyped-call]  # Ray has no type here
    parts = [part.partition("=") for part in os.environ.get(GROWTH, "").split(",") if part]
    return float(max(have, {name.strip(): float(value) for name, _, value in parts}.get(kind, 0)))


def for_workers(config: JobConfig) -> str:
    """The configuration as JSON, without the store's address: workers need none, and Ray keeps it."""
    return config.model_copy(update={"tracking": TrackingConfig()}).model_dump_json()


def check_resources(config: JobConfig) -> None:
    """Raises UserError if the cluster has, and can get, fewer CPUs or GPUs than the workers need."""
    kind, least = "GPU" if config.ray.use_gpu else "CPU", config.ray.workers[0]
    have = capacity(kind)
    if have < least:
        raise UserError(
            f"{least} workers need as many {kind}s, the cluster has {have:.0f}",
            where="ray.train_workers",
            todo="ask for fewer workers",
        )


def _connect(config: RayConfig) -> None:
    import ray

    settings: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": _WORKERS},
    }
    if (address := joined(config)) is not None:
        try:
            ray.init(address=address, **settings)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            reason = str(error).partition("\n")[0]
            todo = "check ray.address (or RAY_ADDRESS) and RAY_AUTH_MODE=token with the cluster's token"
            raise UserError(f"cluster cannot be joined ({reason})", where=address, todo=todo) from None
        return
    # With the dashboard, which Ray Train asks which of its runs still live.
    ray.init(address="local", num_cpus=config.num_cpus, **settings)


def in_thread(work: Callable[[], object]) -> None:
    """Waits for `work` in a thread of its own.

    In the main one Ray Train puts a handler of its own in place, which kills the workers on Ctrl-C.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # and not for ever: signals are answered in between
    if failed:
        raise failed[0]


def user_fault(error: BaseException) -> UserError | OSError | None:
    """The UserError behind an error of Ray's, or else the full disk: Ray wraps what a worker raises often."""
    full = None
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        item = waiting.pop()
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        if type(item) is UserError:
            return item
        if isinstance(item, OSError) and item.errno in FULL_DISK:
            full = item
        causes = (getattr(item, name, None) for name in ("cause", "controller_failure"))
        workers = getattr(item, "worker_failures", {})
        waiting += [item.__context__, item.__cause__, *causes, *workers.values()]
    return full


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C while Ray Tune works in the block ends it in good order, then the block as KeyboardInterrupt.

    A second one ends it at once. Tune's own answer to Ctrl-C would be lost where its last trial ends just
    then; its answer to SIGUSR1 is the same, and is called here.
    """
    asked = list[int]()

    def ask(number: int, frame: FrameType | None) -> None:
        stop = signal.getsignal(signal.SIGUSR1)
        if asked or not callable(stop):  # Tune has not begun
            raise KeyboardInterrupt
        asked.append(number)
        stop(number, frame)

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, ask) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    if asked:
        raise KeyboardInterrupt


@contextmanager
def stoppable(stop: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C, and SIGTERM as clusters send it, make the file `stop` in the block; a second Ctrl-C ends it.

    The workers save and end when they see it; then the block ends as KeyboardInterrupt.
    """

    def ask(number: int, _: object) -> None:
        if number == signal.SIGINT and stop.exists():
            raise KeyboardInterrupt
        stop.touch()
        tell("saving, then ending; Ctrl-C once more ends at once")

    main = threading.current_thread() is threading.main_thread()
    asked = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, ask) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.exists():
        stop.unlink()
        raise KeyboardInterrupt
