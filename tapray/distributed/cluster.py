"""Connects to Ray: a local cluster for this job, or one that runs already."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tapray.atomic import FULL_DISK
from tapray.config import JobConfig, RayConfig, TrackingConfig
from tapray.distributed.signals import end_now, on_signals
from tapray.errors import UserError

# Set before ray is imported: each takes seconds off or silences what is not ours to show.
_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # 2 s: end and faults are seen late; 0.2 s: busy on few cores
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process that tells of drained machines; SIGTERM tells us
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "900",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see signals.interruptible
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
    from ray.tune.execution import class_cache

    # Tune would pass these on in a way that ends in every machine's logs. Machines have keys of their own.
    keys = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(keys)
    # Its own wrapper would lose the cause on the way from a worker.
    ray.data.DataContext.get_current().raise_original_map_exception = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ours = not ray.is_initialized()
    if ours:
        _connect(config)
    try:
        with on_signals({signal.SIGTERM}, end_now):  # Ray's own handler leaves without a word
            yield
    except Exception as error:
        fault = user_fault(error)
        if fault is None or fault is error:
            raise
        raise fault from None
    finally:
        if ours:
            ray.shutdown()


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
    kind, least = config.ray.kind, config.ray.workers[0]
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
    # Without the dashboard, ten processes that nobody asks here: Ray Train would ask them whether what a dead
    # run has reserved may be freed, and this cluster ends with its run.
    ray.init(address="local", num_cpus=config.num_cpus, include_dashboard=False, **settings)


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
