"""What the stage that pretrains says of its workers."""

from __future__ import annotations

from pathlib import Path

from tapray.pretraining import telling_workers
from tests.conftest import tiny_config


def test_a_change_of_workers_is_told_once_though_its_log_is_read_anew(tmp_path: Path) -> None:
    told = list[str]()
    config = tiny_config(tmp_path, ray={"train_workers": [1, 2]})
    tell = telling_workers(config, told.append)
    seen = [(10, 2), (20, 2), (10, 2), (20, 1), (30, 1), (10, 2), (20, 1), (30, 1), (40, 2), (50, 2)]
    for step, workers in seen:
        tell({"step": step, "workers": workers})
    batch = config.pretrain.batch
    assert told == [f"{n} workers share each batch of {batch} now; the rate stays" for n in (1, 2)]
