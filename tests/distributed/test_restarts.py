"""Which errors of Ray's let a training go on, and what is said where it cannot; without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.train import TrainingFailedError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from tapray.config import RayConfig
from tapray.distributed import restarts
from tapray.distributed.restarts import fit_to_the_end, lost, waiting_for_room
from tapray.errors import UserError

DIED = WorkerHealthCheckFailedError("rank 1 is gone", ActorDiedError())
NO_ROOM = ControllerError(WorkerGroupStartupTimeoutError(2))
KILLED = WorkerGroupError("lost", {0: RuntimeError("connection closed by peer"), 1: DIED})
FAULT = WorkerGroupError("raised", {0: ZeroDivisionError("division by zero")})


class Fits:
    """Trainers that end with these errors in turn, each after so many steps more; None: well."""

    def __init__(self, ends: list[tuple[int, TrainingFailedError | None]]) -> None:
        self.ends, self.step, self.begun = ends, 0, 0

    def make(self) -> Any:
        self.begun += 1
        return self

    def fit(self) -> None:
        steps, error = self.ends.pop(0)
        self.step += steps
        if error is not None:
            raise error

    def see(self) -> None:
        fit_to_the_end(self.make, lambda: self.step, lambda: None)


def test_lost_workers_are_replaced_as_long_as_training_gets_on() -> None:
    fits = Fits([(10, KILLED), (10, KILLED), (10, KILLED), (5, None)])
    fits.see()
    assert (fits.begun, fits.step) == (4, 35)


def test_without_progress_it_ends_with_one_line() -> None:
    fits = Fits([(10, KILLED), (0, KILLED)])
    with pytest.raises(UserError, match="workers died again and again"):
        fits.see()
    assert fits.begun == 2


def test_no_room_is_not_waited_for_twice() -> None:
    fits = Fits([(10, NO_ROOM)])
    with pytest.raises(UserError, match=r"ray\.train_workers: no room for the workers"):
        fits.see()


def test_a_fault_of_the_program_is_no_lost_worker() -> None:
    assert lost(FAULT) is None
    with pytest.raises(WorkerGroupError):
        Fits([(0, FAULT)]).see()


def test_what_a_cluster_lacks_is_told_once_and_ends_what_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "LOOK_S", 0.0)
    cpus = iter([2.0, 1.0, 1.0, 2.0, 0.0, 0.0])
    monkeypatch.setattr(restarts.ray, "cluster_resources", lambda: {"CPU": next(cpus)})
    told, stop = list[str](), tmp_path / "stop"
    look = waiting_for_room(RayConfig(train_workers=2), stop, told.append)
    for _ in range(5):
        look()
    assert told == [
        f"waiting for machines: 2 workers need as many CPUs, there are {have} now" for have in (1, 0)
    ]
    stop.touch()
    with pytest.raises(KeyboardInterrupt):
        look()
