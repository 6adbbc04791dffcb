"""Work that is done in a thread beside, in the order in which it was given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def in_background(work: Callable[[Item], object]) -> Iterator[Callable[[Item], None]]:
    """Gives a function that has `work` done with an item soon; at the end of the block all of it is.

    What `work` raises ends it, and is raised at the end of the block. A block that fails does not wait for
    more than the item that is at work.
    """
    waiting, failed = SimpleQueue[tuple[Item] | None](), list[BaseException]()

    def run() -> None:
        while (item := waiting.get()) is not None and not failed:
            try:
                work(item[0])
            except BaseException as error:  # raised below
                failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield lambda item: waiting.put((item,))
    except BaseException:
        while not waiting.empty():
            waiting.get()
        raise
    finally:
        waiting.put(None)
        thread.join()
    if failed:
        raise failed[0]
