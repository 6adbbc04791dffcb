"""Signals while Ray works."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tapray.distributed.cluster import terminable, user_fault
from tapray.errors import UserError


def test_sigterm_asks_the_workers_to_stop(tmp_path: Path) -> None:
    stop, before = tmp_path / "stop", signal.getsignal(signal.SIGTERM)
    reached = []

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append(stop.exists())  # it goes on to its end, which the workers bring about

    with pytest.raises(KeyboardInterrupt), terminable(stop):
        killed()
    assert reached == [True]
    assert not stop.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_a_signal_nothing_is_raised_and_an_error_passes(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable(tmp_path / "stop"):
        pass
    with pytest.raises(OSError, match="own"), terminable(tmp_path / "stop"):
        raise OSError("own")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_of_a_worker_is_found_behind_rays_errors() -> None:
    full, ours = OSError(errno.ENOSPC, "No space left on device", "log.jsonl"), UserError("no movie")
    error = RuntimeError("of Ray")
    error.__cause__ = KeyError("of Ray too")
    error.__cause__.__context__ = full
    assert user_fault(error) is full
    full.__context__ = ours
    assert user_fault(error) is ours
    assert user_fault(OSError(errno.EIO, "broken")) is None
