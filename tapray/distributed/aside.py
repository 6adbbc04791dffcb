"""Work that a worker does while the driver does something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import ray

P = ParamSpec("P")
T = TypeVar("T")


def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Starts `function` in a worker of the running session; what is returned waits for its answer."""
    answer = ray.remote(function).remote(*args, **kwargs)

    def wait() -> T:
        found: T = ray.get(answer)
        return found

    return wait
