"""Connects to Ray: a local cluster for this job, or one that runs already."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tapray.config import RayConfig

# Set before ray is imported: each takes seconds off or silences what is not ours to show.
_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # ray.train.report costs 2 s a call otherwise
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "300",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
}


@contextmanager
def session(config: RayConfig) -> Iterator[None]:
    """A Ray session for the duration of the block; an existing one is used and left running."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray

    if ray.is_initialized():
        yield
        return
    local = config.address is None
    threads = {"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}}
    ray.init(
        address="local" if local else config.address,
        num_cpus=config.num_cpus if local else None,
        include_dashboard=None if local else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env=threads,
        configure_logging=True,
    )
    try:
        yield
    finally:
        ray.shutdown()
