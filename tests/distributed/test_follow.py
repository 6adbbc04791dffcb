"""Following a job over a link that breaks, and sending it again; without a cluster."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from tapray.console import Reporter
from tapray.distributed import submission
from tapray.distributed.jobs import Cluster, Lost
from tapray.distributed.submission import RESTARTS, see_through
from tapray.errors import UserError
from tapray.replay import Replay

CLOSED = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
UNKNOWN = RuntimeError("Request failed with status code 404: Job tapray-a-1 does not exist.")


class Client:
    """Ray's, for one job: what each link says and each question is answered with, in turn."""

    def __init__(self, links: list[list[Any]], answers: list[Any], log: str = "") -> None:
        self._links, self._answers, self._log = links, answers, log

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for chunk in self._links.pop(0):
            yield said(chunk)

    def get_job_info(self, name: str) -> Any:
        return SimpleNamespace(status=said(self._answers.pop(0)))

    def get_job_logs(self, name: str) -> str:
        return self._log


def said(what: Any) -> Any:
    if isinstance(what, Exception):
        raise what
    return what


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: None)


def followed(client: Client) -> list[str]:
    cluster = Cluster.__new__(Cluster)
    cluster.address, cluster._client = "http://head:8265", client
    stream = io.StringIO()
    cluster.follow("tapray-a-1", Replay(Reporter("rich", stream)))
    return stream.getvalue().split()


def test_a_link_that_breaks_is_opened_again_and_no_line_is_shown_twice() -> None:
    links = [["one\ntw", CLOSED], [CLOSED], ["one\n", "two\nthr", "ee"]]
    answers = [JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert followed(Client(links, answers)) == ["one", "two", "three"]


def test_what_was_told_while_no_link_was_there_is_shown() -> None:
    links, answers = [["one\n", CLOSED]], [JobStatus.FAILED]
    assert followed(Client(links, answers, "one\ntwo\nthree")) == ["one", "two", "three"]


def test_a_cluster_that_has_forgotten_the_job_has_lost_it() -> None:
    with pytest.raises(Lost, match="does not answer any more"):
        followed(Client([["one\n", CLOSED]], [UNKNOWN]))


class Sends:
    """A cluster: `new` is whether each submit makes a job, `ends` how following it ends, in turn."""

    new: Sequence[bool] = ()
    ends: Sequence[Any] = ()
    tries = 0

    def __init__(self, address: str) -> None:
        self.made = False

    def submit(self, *_: object, again: bool) -> str:
        assert again == (Sends.tries > 0)
        self.made = self.new[Sends.tries]
        return "tapray-a-1"

    def follow(self, name: str, replay: Replay) -> Any:
        Sends.tries += 1
        status = said(self.ends[Sends.tries - 1])
        return SimpleNamespace(status=status, driver_exit_code=None, message="killed")


@pytest.mark.parametrize("wait", [True, False])
def test_only_new_jobs_count(monkeypatch: pytest.MonkeyPatch, wait: bool) -> None:
    monkeypatch.setattr(submission, "Cluster", Sends)
    monkeypatch.setattr(Sends, "tries", 0)
    lost = 3 * RESTARTS
    monkeypatch.setattr(Sends, "new", [True] + [False] * lost)
    monkeypatch.setattr(Sends, "ends", [*[Lost("no answer")] * lost, JobStatus.SUCCEEDED])
    if not wait:
        with pytest.raises(Lost):
            see_through("", {}, Path("run"), (), Reporter("quiet", io.StringIO()), wait=False)
        return
    see_through("", {}, Path("run"), (), Reporter("quiet", io.StringIO()), wait=True)
    assert Sends.tries == lost + 1


@pytest.mark.parametrize(("wait", "sends"), [(True, RESTARTS), (False, 1)])
def test_a_job_that_always_dies_is_given_up(monkeypatch: pytest.MonkeyPatch, wait: bool, sends: int) -> None:
    monkeypatch.setattr(submission, "Cluster", Sends)
    monkeypatch.setattr(Sends, "tries", 0)
    monkeypatch.setattr(Sends, "new", [True] * (RESTARTS + 1))
    monkeypatch.setattr(Sends, "ends", [JobStatus.FAILED] * (RESTARTS + 1))
    with pytest.raises(UserError, match=r"has died \(killed\)"):
        see_through("", {}, Path("run"), (), Reporter("quiet", io.StringIO()), wait=wait)
    assert Sends.tries == sends
