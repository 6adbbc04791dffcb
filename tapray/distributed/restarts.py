"""Sees a training through lost workers and lost machines, and says what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray.train import TrainingFailedError
from ray.train.torch import TorchTrainer

from tapray.config import RayConfig
from tapray.distributed.cluster import user_fault
from tapray.distributed.signals import in_thread
from tapray.errors import UserError

LOOK_S = 5.0  # seconds between looks at the cluster


def fit_to_the_end(
    make: Callable[[], TorchTrainer], done: Callable[[], int], watch: Callable[[], None]
) -> None:
    """Fits to the end. Ray counts lost workers over a whole fit: begins another one where that did something.

    Args:
        make: a trainer, each time anew; done: steps in the latest checkpoint; watch: called all the while.

    Raises:
        UserError: workers died without a new checkpoint between them, or found no room. What a worker raised
            is raised as Ray does.
    """
    while True:
        before = done()
        try:
            in_thread(make().fit, watch)
            return
        except TrainingFailedError as error:
            if user_fault(error) is not None:
                raise
            if done() > before and not _without_room(error):
                continue
            if (told := lost(error)) is not None:
                raise told from error
            raise


def lost(error: TrainingFailedError) -> UserError | None:
    """What to say where workers were lost or found no room, through no fault of the program."""
    if _without_room(error):
        return UserError(
            "no room for the workers was found in all that time",
            where="ray.train_workers",
            todo="run again to continue once the machines are there; with fewer workers it begins anew",
        )
    failures = getattr(error, "worker_failures", {}).values()
    if not any(hasattr(each, "health_check_failure") for each in failures):  # as one that is dead has
        return None
    return UserError(
        "workers died again and again, without a new checkpoint between their deaths",
        where="pretrain",
        todo="see whether their memory suffices (Ray's logs tell why they died); run again to continue",
    )


def _without_room(error: TrainingFailedError) -> bool:
    """Whether Ray gave up to look for room: it has waited as long as it may."""
    return type(getattr(error, "controller_failure", None)).__name__.startswith("WorkerGroupStartup")


def waiting_for_room(config: RayConfig, stop: Path, warn: Callable[[str], None]) -> Callable[[], None]:
    """To be called all the while: says where the cluster has too little for the workers.

    Then no worker is there that would see the file `stop`, and KeyboardInterrupt is raised where it is made.
    """
    kind, least = config.kind, config.workers[0]
    due, told = time.monotonic() + LOOK_S, False

    def look() -> None:
        nonlocal due, told
        if time.monotonic() < due:
            return
        due = time.monotonic() + LOOK_S
        try:
            have = ray.cluster_resources().get(kind, 0.0)  # type: ignore[no-untyped-call]  # Ray has no type here
        except (ray.exceptions.RayError, RuntimeError, OSError):
            return  # the head is away; what is fitted knows how long to wait for it
        if have >= least:
            told = False
            return
        if stop.exists():
            raise KeyboardInterrupt
        if not told:
            warn(f"waiting for machines: {least} workers need as many {kind}s, there are {have:.0f} now")
        told = True

    return look
