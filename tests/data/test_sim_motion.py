"""Lives and paths of simulated nuclei."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
import pytest

from tapray.config import SimulateConfig
from tapray.data.sim_motion import grown_radii, move, plan_lives
from tapray.errors import UserError


def _still(**other: Any) -> SimulateConfig:
    """A field in which nothing happens and nothing grows."""
    return SimulateConfig(division_rate=0, death_rate=0, growth=False, **other)


def test_nuclei_double_their_area() -> None:
    config = SimulateConfig(n_nuclei=60, division_rate=0.05, death_rate=0, height=512, width=512)
    rng = np.random.default_rng(0)
    lives = plan_lives(config, rng)
    radii = grown_radii(config, lives, rng)
    assert np.mean(radii[0, lives.parent < 0]) == pytest.approx(config.radius, rel=0.1)
    whole_cycle = np.flatnonzero((lives.parent >= 0) & (lives.begin + 30 < config.frames))
    newborn, grown = radii[lives.begin[whole_cycle], whole_cycle], radii[-1, whole_cycle]
    np.testing.assert_allclose((grown / newborn) ** 2, 2)


def test_rates_are_hazards() -> None:
    config = SimulateConfig(
        n_nuclei=400, height=2048, width=2048, division_rate=0.02, death_rate=0.005, frames=40
    )
    lives = plan_lives(config, np.random.default_rng(3))
    founders = lives.parent < 0
    grown = founders & (lives.age == 30)
    assert grown.sum() / founders.sum() == pytest.approx(1 / (1 + 30 * 0.02), abs=0.08)
    alive = np.minimum(lives.event_at, 39) - lives.begin + 1
    divided = (grown & (lives.fate == 1) & (lives.event_at < 40)).sum() / alive[grown].sum()
    died = (grown & (lives.fate == 2) & (lives.event_at < 40)).sum() / alive[grown].sum()
    assert divided == pytest.approx(0.02, rel=0.25)
    assert died == pytest.approx(0.005, rel=0.4)


@pytest.mark.parametrize("motion", [0.0, 0.5, 2.0])
def test_motion_is_the_step_per_frame_without_drift(motion: float) -> None:
    config = _still(n_nuclei=40, height=1024, width=1024, motion=motion, frames=80)
    rng = np.random.default_rng(5)
    lives = plan_lives(config, rng)
    centre = move(config, lives, grown_radii(config, lives, rng), rng).centre
    steps = np.diff(centre, axis=0)
    assert steps.std() == pytest.approx(motion, rel=0.05, abs=0.05)
    assert np.abs(steps.mean(axis=(0, 1))).max() < 0.1 * motion + 0.01
    first, second = steps[:40].std(), steps[40:].std()
    assert first == pytest.approx(second, rel=0.1, abs=0.02)


def test_nuclei_rarely_overlap_and_stay_in_the_field() -> None:
    config = _still(frames=20)
    rng = np.random.default_rng(2)
    lives = plan_lives(config, rng)
    centre = move(config, lives, grown_radii(config, lives, rng), rng).centre
    assert centre.min() >= 0
    assert centre.max() <= 255
    distance = np.linalg.norm(centre[:, :, None] - centre[:, None], axis=-1)
    distance += 1e3 * np.eye(config.n_nuclei)
    assert (distance < 1.4 * config.radius).any(axis=2).mean() < 0.05


def test_room_is_checked_for_explosive_growth() -> None:
    config = SimulateConfig(frames=2000, division_rate=1.0, death_rate=0, height=64, width=64, n_nuclei=2)
    with pytest.raises(UserError, match="too many"):
        plan_lives(config, np.random.default_rng(0))
    assert pi * config.radius**2 * 2 < 0.7 * 64 * 64  # it is the growth that is at fault
