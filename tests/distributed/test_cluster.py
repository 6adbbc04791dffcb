"""Errors as they come out of Ray."""

from __future__ import annotations

import errno

import pytest

from tapray.distributed.cluster import user_fault
from tapray.errors import UserError


def test_a_full_disk_of_a_worker_is_found_behind_rays_errors() -> None:
    full, ours = OSError(errno.ENOSPC, "No space left on device", "log.jsonl"), UserError("no movie")
    error = RuntimeError("of Ray")
    error.__cause__ = KeyError("of Ray too")
    error.__cause__.__context__ = full
    assert user_fault(error) is full
    full.__context__ = ours
    assert user_fault(error) is ours
    assert user_fault(OSError(errno.EIO, "broken")) is None


@pytest.mark.slow
def test_tune_hands_no_keys_on(ray_cluster: None) -> None:
    """Ray writes down, in logs on every machine, what it hands on."""
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    assert not {
        name for name in ENV_VARS_TO_PROPAGATE if not name.startswith(("RAY_", "TRAIN_", "NCCL_", "TORCHFT_"))
    }
