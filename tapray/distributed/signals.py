"""What Ctrl-C and SIGTERM do while Ray works: they end it in good order, a second Ctrl-C at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


@contextmanager
def on_signals(numbers: Set[signal.Signals], handler: Handler) -> Iterator[None]:
    """`handler` answers these signals in the block; in a thread, which has none, nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if main}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def end_now(*_: object) -> None:
    """A handler."""
    raise KeyboardInterrupt


def in_thread(work: Callable[[], object], watch: Callable[[], object] = lambda: None) -> None:
    """Waits for `work` in a thread of its own; `watch` is called meanwhile, and may end it by an error.

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
        watch()
    if failed:
        raise failed[0]


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

    with on_signals({signal.SIGUSR1}, signal.SIG_DFL), on_signals({signal.SIGINT}, ask):
        yield
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

    with on_signals({signal.SIGINT, signal.SIGTERM}, ask):
        yield
    if stop.exists():
        stop.unlink()
        raise KeyboardInterrupt
