"""Ray's job API: sends a study to a cluster, follows it, lists and stops jobs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import requests
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

import tapray
from tapray.console import Reporter
from tapray.distributed.preflight import CLIENT, versions
from tapray.errors import UserError, first_line
from tapray.redaction import redact
from tapray.replay import Replay
from tapray.runfolder import content_hash

PREFIX = "tapray-"  # of the names of all jobs that are sent
TIMEOUT_S = 60.0  # seconds until a request counts as lost
QUIET_S = 20.0  # seconds without a line after which the cluster is asked whether it is there
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # which Ray's client would take instead
_CHATTY = ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
_LOST = (requests.RequestException, aiohttp.ClientError, ConnectionError, TimeoutError, RuntimeError)


class Lost(UserError):  # noqa: N818
    """The cluster does not answer, or not any more."""


class Cluster:
    """A Ray cluster at the address of its dashboard.

    made: whether the last `submit` made a new job.

    Raises:
        UserError: it refuses the token, or runs another version of Ray. Lost: it does not answer.
    """

    def __init__(self, address: str) -> None:
        for name in _CHATTY:  # they announce what they upload
            logging.getLogger(name).setLevel(logging.ERROR)
        socket.setdefaulttimeout(TIMEOUT_S)  # Ray's client would wait for ever
        self.made = False
        self.address = address = address if "://" in address else f"http://{address}"
        with self._asked("cluster does not answer"):
            self._answers()
            with _without(*_OVERRIDES):
                self._client = JobSubmissionClient(address)
            theirs = self._client._do_request("GET", "/api/version").json()["ray_version"]
        if theirs != (ours := versions()["Ray"]):
            what = f"the cluster runs Ray {theirs}, this is {ours}"
            raise UserError(what, where=redact(address), todo="use the same version on both sides")

    def submit(
        self,
        variants: Mapping[str, dict[str, Any]],
        out: Path,
        force: Sequence[str] = (),
        again: bool = False,
    ) -> str:
        """Starts a study as a job, unless it is going on already; returns the job's name.

        Args:
            variants: plain data of the study's variants, with no path relative to this machine's folders.
            out: the run folder, on storage that all machines of the cluster mount.
            again: it has been sent before, so that one that is going on will do whatever is forced.
        """
        study = variants.get("", {"variants": variants})
        name = next(iter(variants.values()))["name"]
        identity = content_hash([study, str(out)])[:32]
        self.made = False
        earlier = [job for job in self.jobs() if (job.metadata or {}).get("out") == str(out)]
        for job in (job for job in earlier if not job.status.is_terminal()):
            if (job.metadata or {}).get("identity") == identity and (again or not force):
                return str(job.submission_id)
            what = f"job {job.submission_id} works in this run folder"
            raise UserError(what, where=out, todo=f"stop it first: tapray jobs stop {job.submission_id}")
        number = 1 + max((int(str(job.submission_id).rpartition("-")[2]) for job in earlier), default=0)
        entry = ["python", "-m", "tapray", "run", "study.yaml", "--out", str(out), "--progress", "json"]
        entry += [part for stage in force for part in ("--force", stage)]
        with tempfile.TemporaryDirectory() as folder, self._asked():
            text = yaml.safe_dump(study, sort_keys=False, allow_unicode=True)
            (Path(folder) / "study.yaml").write_text(text, encoding="utf-8")
            self.made = True  # also where the answer is lost
            return self._client.submit_job(
                entrypoint=shlex.join(entry),
                submission_id=f"{PREFIX}{name}-{content_hash(str(out))[:8]}-{number}",
                runtime_env={
                    "working_dir": folder,
                    "py_modules": [str(Path(tapray.__file__).parent)],
                    "excludes": ["__pycache__"],
                    "env_vars": {CLIENT: json.dumps(versions()), "RAY_JOB_STOP_WAIT_TIME_S": "60"},
                },
                metadata={"study": name, "out": str(out), "identity": identity},
            )

    def jobs(self) -> list[JobDetails]:
        """The jobs that were sent from here or elsewhere, the latest first."""
        with self._asked():
            found = [job for job in self._client.list_jobs() if (job.submission_id or "").startswith(PREFIX)]
        return sorted(found, key=lambda job: -(job.start_time or 0))

    def details(self, name: str) -> JobDetails:
        """What the cluster knows of a job.

        Raises:
            UserError: there is no job of that name.
        """
        with self._asked():
            found: JobDetails = self._client.get_job_info(name)
        return found

    def stop(self, name: str) -> None:
        """Ends a job; it continues when it is submitted again."""
        with self._asked():
            self._client.stop_job(name)

    def show(self, name: str, reporter: Reporter, *, follow: bool) -> None:
        """Shows what a job has told so far; if `follow`, until it ends."""
        replay = Replay(reporter)
        if follow and not self.details(name).status.is_terminal():
            self.follow(name, replay)
        else:
            with self._asked():
                text = str(self._client.get_job_logs(name))
            for line in text.splitlines():
                replay.line(line)
            replay.close()
        if replay.fault:
            reporter.warn(replay.fault)

    def follow(self, name: str, replay: Replay) -> JobDetails:
        """Shows a job's progress until it ends; returns what is known of it then.

        Raises:
            Lost: the cluster went away, or has forgotten the job.
        """
        shown, whole = 0, False
        try:
            with self._asked(known=True):
                while True:
                    shown, whole = asyncio.run(self._tail(name, replay, shown))
                    details: JobDetails = self._client.get_job_info(name)
                    if details.status.is_terminal():
                        break
                    time.sleep(1)  # the link broke, or the job is only about to end
                with suppress(*_LOST):  # of a machine that is gone
                    for line in () if whole else self._client.get_job_logs(name).split("\n")[shown:]:
                        replay.line(line)
                return details
        finally:
            replay.close()

    async def _tail(self, name: str, replay: Replay, shown: int) -> tuple[int, bool]:
        """Feeds the lines after those that were shown; returns how many there are, and whether to the end."""
        rest, number, chunks = "", 0, aiter(self._client.tail_job_logs(name))
        while True:
            coming = asyncio.ensure_future(anext(chunks, None))
            while not (await asyncio.wait([coming], timeout=QUIET_S))[0]:
                self._answers()  # a link that was cut says nothing
                if self._client.get_job_info(name).status.is_terminal():
                    return max(number, shown), False
            try:
                text = coming.result()
            except _LOST:  # the link broke; whether the cluster is there is asked next
                return max(number, shown), False
            if text is None:
                break
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                number += 1
                if number > shown:
                    replay.line(line)
        replay.line(rest)
        return max(number, shown), True

    def _answers(self) -> None:
        """Raises requests.RequestException if nothing does."""
        requests.get(self.address, timeout=10)

    @contextmanager
    def _asked(
        self, else_: str = "the cluster does not answer any more", known: bool = False
    ) -> Iterator[None]:
        """Within the block what goes wrong is one line; a job that was `known` is not unknown, but lost."""
        where = redact(self.address)
        try:
            yield
        except AuthenticationError:
            todo = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
            raise UserError("the cluster refuses the token", where=where, todo=todo) from None
        except (*_LOST, ValueError, KeyError) as error:
            if "status code 404" in str(error) and not known:
                raise UserError("no such job", where=where, todo="tapray jobs list names them") from None
            no_answer = isinstance(error, requests.RequestException)  # its text is long and unclear
            reason = type(error).__name__ if no_answer else first_line(error)
            todo = "check the address, and that the way to it is open"
            raise Lost(f"{else_} ({reason})", where=where, todo=todo) from None


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Environment variables are not there within the block."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def row(job: JobDetails) -> tuple[str, ...]:
    """A job's name, status, start, run folder and message, as text."""
    started = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC).isoformat(timespec="seconds")
    folder = (job.metadata or {}).get("out", "")
    return str(job.submission_id), job.status.value, started, folder, message(job)


def message(job: JobDetails) -> str:
    """What Ray says of a job, whose log may follow from the second line on."""
    return (job.message or "").partition("\n")[0]
