"""Signals while Ray works."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tapray.distributed.cluster import terminable


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
