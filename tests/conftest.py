"""What the tests share: one Ray cluster and one whole job, each made when first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tapray.config import JobConfig, RayConfig
from tapray.configfile import parse_config

# The same examples every time: a run of the tests says something of the change, not of the draw.
settings.register_profile("tapray", derandomize=True, deadline=None)
settings.load_profile("tapray")

TINY: dict[str, Any] = {
    "name": "tiny",
    "simulate": {
        **{"n_movies": 3, "frames": 16, "height": 128, "width": 128, "n_nuclei": 10},
        **{"division_rate": 0.05, "death_rate": 0.03},
    },
    "crops": {"size": 32, "crops_per_event": 2, "max_negatives": 60},
    "pretrain": {
        **{"preset": "unet-8s2", "size": 32, "batch": 16, "steps_per_epoch": 20},
        **{"epochs": 3, "val_batches": 2},
    },
    "study": {
        **{"inits": ["tap", "end_to_end"], "heads": ["linear"], "budgets": [2], "seeds": 2, "trials": 3},
        **{"steps": 20, "steps_trained": 5, "random_draws": 1},
    },
}


def tiny_config(out: Path, **sections: Any) -> JobConfig:
    """A job of a minute; `sections` replace keys within its sections."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    for name, keys in sections.items():
        data[name] = {**data.get(name, {}), **keys}
    return parse_config({**data, "out": str(out)})


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the lock."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".lock"}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster that product code finds running and leaves running."""
    from tapray.distributed.cluster import session

    with session(RayConfig(num_cpus=2)):
        yield


@pytest.fixture(scope="session")
def tiny_job(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a whole tiny job that was stopped after each of its stages. To be read only."""
    from tapray.console import Reporter
    from tapray.job import run_job

    out = tmp_path_factory.mktemp("job") / "runs" / "tiny"
    for stage in ("simulate", "shard", "pretrain", "features", "study", "report"):
        run_job(tiny_config(out), until=stage, reporter=Reporter("quiet"))
    return out
