"""The learning rate over a run."""

from __future__ import annotations

import pytest
import torch

from tapray.config import PretrainConfig
from tapray.pretrain.optim import make_optimizer
from tests.pretrain.made import config


def rates(settings: PretrainConfig, steps: int) -> list[float]:
    optimizer, scheduler = make_optimizer(torch.nn.Linear(1, 1), settings)
    found = []
    for _ in range(steps):
        optimizer.step()
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", ["one_cycle", "cyclic", "cosine"])
def test_any_number_of_steps_has_a_schedule(schedule: str) -> None:
    for total in range(1, 12):
        found = rates(
            config(schedule=schedule, epochs=1, steps_per_epoch=total, learning_rate=1e-2, warmup=3), total
        )
        assert min(found) >= 0
        assert max(found) <= 1e-2 + 1e-12


def test_the_published_schedule_rises_tenfold_and_falls_again() -> None:
    found = rates(config(schedule="cyclic", learning_rate=1e-3, steps_per_epoch=5), 21)
    highest = [1e-4 + 0.9**cycle * 9e-4 for cycle in (1, 2)]
    assert [found[step] for step in (0, 5, 10, 15, 20)] == pytest.approx(
        [1e-4, highest[0], 1e-4, highest[1], 1e-4]
    )


def test_the_cosine_rises_over_the_warm_up_and_falls_to_the_end() -> None:
    settings = config(schedule="cosine", warmup=4, learning_rate=1.0, epochs=2, steps_per_epoch=10)
    found = rates(settings, 20)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[12] == pytest.approx(0.5)
    assert found == sorted(found[:5]) + sorted(found[5:], reverse=True)
    assert 0 < found[-1] < 0.02
