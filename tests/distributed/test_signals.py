"""Signals while Ray works."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tapray.distributed.signals import in_thread, interruptible, stoppable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_workers_to_save_and_end(tmp_path: Path, number: signal.Signals) -> None:
    stop, before, told = tmp_path / "stop", signal.getsignal(number), list[str]()
    reached = []

    def killed() -> None:
        os.kill(os.getpid(), number)
        reached.append(stop.exists())  # it goes on to its end, which the workers bring about

    with pytest.raises(KeyboardInterrupt), stoppable(stop, told.append):
        killed()
    assert reached == [True]
    assert told == ["saving, then ending; Ctrl-C once more ends at once"]
    assert not stop.exists()
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def killed() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt), stoppable(tmp_path / "stop", lambda _: None):
        killed()
    (tmp_path / "stop").unlink()  # for the next start, as it does


def test_without_a_signal_nothing_is_raised_and_an_error_passes(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stoppable(tmp_path / "stop", lambda _: None):
        pass
    with pytest.raises(OSError, match="own"), stoppable(tmp_path / "stop", lambda _: None):
        raise OSError("own")
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_as_the_last_trial_ends_is_not_lost() -> None:
    told, before = list[int](), signal.getsignal(signal.SIGINT)

    def killed() -> None:
        signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))  # as Tune does
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interruptible():
        killed()  # and comes to its end
    assert told == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), interruptible():  # before Tune has begun
        os.kill(os.getpid(), signal.SIGINT)


def test_work_in_a_thread_is_waited_for_and_its_fault_raised() -> None:
    done = []
    in_thread(lambda: done.append(threading.current_thread() is threading.main_thread()))
    assert done == [False]
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 // 0)
