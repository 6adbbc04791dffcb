"""Work beside: in order, all of it, and its faults are told."""

from __future__ import annotations

import threading
import time

import pytest

from tapray.background import in_background


def test_all_is_done_in_order_by_the_end_of_the_block() -> None:
    done: list[int] = []
    beside = threading.Event()

    def work(item: int) -> None:
        beside.wait(5)
        done.append(item)

    with in_background(work) as later:
        for number in range(5):
            later(number)
        assert done == []  # nobody has waited
        beside.set()
    assert done == [0, 1, 2, 3, 4]


def test_what_it_raises_is_raised_at_the_end_and_ends_it() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 1:
            raise KeyError("store")
        done.append(item)

    def give() -> None:
        with in_background(work) as later:
            for number in range(4):
                later(number)

    with pytest.raises(KeyError, match="store"):
        give()
    assert done == [0]


def test_a_block_that_fails_does_not_wait_for_all_of_it() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.2)
        done.append(item)

    def give() -> None:
        with in_background(work) as later:
            for number in range(50):
                later(number)
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        give()
    assert len(done) <= 2
