"""Sends a study to a cluster and sees it through to its end, over the cluster's death too."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.job_submission import JobDetails, JobStatus

from tapray.console import Reporter
from tapray.distributed.jobs import Cluster, Lost, message
from tapray.errors import UserError
from tapray.replay import Replay

USERS_FAULT, INTERRUPTED = 2, 130  # exit status of a job that need not be tried again
AGAIN_S = 5.0  # seconds between two tries to reach a cluster
RESTARTS = 20  # jobs of one study, at most


def see_through(
    address: str,
    variants: Mapping[str, dict[str, Any]],
    out: Path,
    force: Sequence[str],
    reporter: Reporter,
    *,
    wait: bool = False,
) -> None:
    """Sends a study and follows it to its end.

    Args:
        wait: send it again whenever the cluster or the job dies of no fault of its own. It continues where
            it was: what it has done lies in the run folder.

    Raises:
        UserError: the study was at fault, or the job was stopped or died.
    """
    cluster, name, made, again = Cluster(address), "the job", 0, False
    while True:
        replay = Replay(reporter)
        try:
            cluster = _answering(address) if again else cluster
            name = cluster.submit(variants, out, force, again=again)
            reporter.say(f"job {name}, sent again" if again and cluster.made else f"job {name}")
            details = cluster.follow(name, replay)
        except Lost as error:
            if not wait:
                raise
            reason = str(error)
        else:
            if details.status is JobStatus.SUCCEEDED:
                return
            _check_fault(details, name, replay)
            reason = f"has died ({message(details)})"
        made += cluster.made
        if replay.started:
            force = ()  # what was forced is gone, and must not go again
        if not wait or made >= RESTARTS:
            break
        again = True
        reporter.warn(f"job {name}: {reason}; going on once there is a cluster")
    todo = f"look at: tapray jobs logs {name}; submitted again, it continues"
    raise UserError(reason, where=f"job {name}", todo=todo)


def _check_fault(details: JobDetails, name: str, replay: Replay) -> None:
    """Raises UserError where a job has ended for a reason that another try would not mend."""
    if details.status is JobStatus.STOPPED or details.driver_exit_code == INTERRUPTED:
        raise UserError("was stopped", where=f"job {name}", todo="submit it again to continue")
    if details.driver_exit_code == USERS_FAULT:
        raise UserError(replay.fault or "the job has failed", where=f"job {name}")


def _answering(address: str) -> Cluster:
    """The cluster, once it answers again."""
    while True:
        time.sleep(AGAIN_S)
        with suppress(Lost):
            return Cluster(address)
