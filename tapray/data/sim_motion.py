"""Simulated lives and paths of nuclei: who divides or dies when, and where everybody is.

Paths are underdamped Langevin dynamics in equilibrium (positions read forwards and backwards
are statistically alike), so that only growth, division and death tell the direction of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from tapray.config import SimulateConfig
from tapray.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STAYS, DIVIDES, DIES = 0, 1, 2  # fates; also the values of the event masks

GROWTH_FRAMES = 30  # from birth until grown; only grown nuclei divide
YOUNG_FRAMES = 8  # no death and no founder younger than this: it would be half a division
FADE_FRAMES = 4  # fragments are drawn for so many frames after the first fragmented one
BORN_AREA = 0.58  # of a newborn, in units of the mean; doubles until grown
CROWDED = 0.7  # share of the field that nuclei may cover
MAX_LABEL = 65535  # labels are uint16
NEVER = 2**40

FRICTION = 0.5  # per frame; the velocity forgets itself over two frames
STIFFNESS = 0.3  # of the repulsion, per frame^2
CONTACT = 1.15  # nuclei repel when nearer than so many times the sum of their radii
SUBSTEPS = 4
BURN_IN = 40  # frames
SPIN = 0.06  # radians per frame
BIRTH_GAP = 0.62  # half the distance of newborn sisters, in mother radii
BIRTH_SPEED = 0.3  # mother radii per frame


@dataclass(frozen=True)
class Lives:
    """One entry per nucleus; parents precede their daughters. All arrays have shape (N,)."""

    begin: Ints  # first frame
    event_at: Ints  # last frame as one body, may lie behind the movie's end
    fate: Ints  # STAYS, DIVIDES or DIES
    parent: Ints  # index, -1 for founders
    age: Ints  # at ``begin``, in frames

    def last_tracked(self, frames: int) -> Ints:
        """Last frame of each track: a dead nucleus is tracked until it first is fragmented."""
        return np.asarray(np.minimum(self.event_at + (self.fate == DIES), frames - 1))

    def last_drawn(self, frames: int) -> Ints:
        """Last frame in which anything of each nucleus is visible."""
        gone = self.event_at + (self.fate == DIES) * (1 + FADE_FRAMES)
        return np.asarray(np.minimum(gone, frames - 1))

    def inherited(self, founders: float, daughters: float, rng: np.random.Generator) -> Floats:
        """Gaussian trait (N,) that daughters take from their mother with a small change."""
        trait = rng.normal(size=len(self.parent)) * np.where(self.parent < 0, founders, daughters)
        for child in np.flatnonzero(self.parent >= 0):
            trait[child] += trait[self.parent[child]]
        return trait


def wander(frames: int, shape: Sequence[int], memory: float, rng: np.random.Generator) -> Floats:
    """Stationary unit Gaussian AR(1) noise (frames, *shape), which is time-reversible."""
    kicks = rng.normal(size=(frames, *shape))
    kicks[1:] *= sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], kicks, axis=0))


def plan_lives(config: SimulateConfig, rng: np.random.Generator) -> Lives:
    """Draw births, divisions and deaths as competing hazards.

    A grown nucleus divides with hazard ``division_rate``, any but the youngest dies with hazard
    ``death_rate``, both per frame. Founders have the ages of a renewal process in equilibrium.
    Raises UserError where the nuclei would cover more than ``CROWDED`` of the field.
    """
    grown = rng.random(config.n_nuclei) * (1 + GROWTH_FRAMES * config.division_rate) < 1
    ages = np.where(grown, GROWTH_FRAMES, rng.integers(YOUNG_FRAMES, GROWTH_FRAMES, config.n_nuclei))
    born = [(0, -1, int(age)) for age in ages]  # begin, parent, age
    fates: list[tuple[int, int]] = []  # event_at, fate
    while len(fates) < len(born) <= MAX_LABEL:
        begin, _, age = born[len(fates)]
        divides = begin + max(0, GROWTH_FRAMES - age) + _waiting(config.division_rate, rng)
        dies = begin + max(0, YOUNG_FRAMES - age) + _waiting(config.death_rate, rng)
        if divides <= dies and divides + 1 < config.frames:
            born += [(divides + 1, len(fates), 0)] * 2
        fate = DIVIDES if divides <= dies else DIES
        fates.append((min(divides, dies), fate if min(divides, dies) < NEVER else STAYS))
    begin, parent, age_at_begin = np.array(born, dtype=np.int64)[: len(fates)].T
    event_at, fate_of = np.array(fates, dtype=np.int64).T
    lives = Lives(begin, event_at, fate_of, parent, age_at_begin)
    _check_room(config, lives, len(born))
    return lives


def _waiting(rate: float, rng: np.random.Generator) -> int:
    """Whole frames until an event of this hazard, from 0 on."""
    return int(rng.geometric(1 - exp(-rate))) - 1 if rate > 0 else NEVER


def _check_room(config: SimulateConfig, lives: Lives, born: int) -> None:
    times = np.arange(config.frames)[:, None]
    here = (times >= lives.begin) & (times <= lives.last_tracked(config.frames))
    most = int(here.sum(axis=1).max())
    if born > MAX_LABEL or most * pi * config.radius**2 > CROWDED * config.height * config.width:
        raise UserError(
            f"{most} or more nuclei of radius {config.radius:g} are too many for a field of "
            f"{config.height} x {config.width}",
            where="simulate",
            todo="lower n_nuclei, radius, frames or division_rate, or enlarge the field",
        )


def grown_radii(config: SimulateConfig, lives: Lives, rng: np.random.Generator) -> Floats:
    """Radius (T, N) in pixels of each nucleus between its events, before it condenses."""
    age = np.arange(config.frames)[:, None] - lives.begin + lives.age
    cycle = np.clip(age / GROWTH_FRAMES, 0, 1)
    area = BORN_AREA * 2**cycle if config.growth else np.ones_like(cycle)
    radii: Floats = config.radius * np.sqrt(area) * np.exp(lives.inherited(0.07, 0.02, rng))
    return radii


@dataclass(frozen=True)
class Paths:
    """Centres (T, N, 2) as y, x in pixels and orientations (T, N) of the long axis in radians,
    from x towards y. Meaningful only while a nucleus is drawn."""

    centre: Floats
    angle: Floats


def move(config: SimulateConfig, lives: Lives, radii: Floats, rng: np.random.Generator) -> Paths:
    """Langevin paths of nuclei that repel each other and reflect at the borders.

    ``config.motion`` is the standard deviation of a free nucleus's step per frame and axis.
    """
    total, frames = len(lives.begin), config.frames
    free_step = sqrt(2 * (FRICTION - 1 + exp(-FRICTION))) / FRICTION  # of a unit velocity
    dynamics = _Dynamics(np.array([config.height, config.width]) - 1.0, config.motion / free_step, rng)
    spins = SPIN * wander(frames, (total,), exp(-FRICTION), rng)
    centre, velocity = np.zeros((frames, total, 2)), np.zeros((total, 2))
    angle = np.zeros((frames, total))
    founders = np.flatnonzero(lives.parent < 0)
    centre[0, founders] = rng.random((len(founders), 2)) * dynamics.limit
    velocity[founders] = dynamics.speed * rng.normal(size=(len(founders), 2))
    angle[0, founders] = rng.uniform(0, pi, len(founders))
    for _ in range(BURN_IN):
        state = dynamics.advance(centre[0, founders], velocity[founders], radii[0, founders])
        centre[0, founders], velocity[founders] = state
    last = lives.last_drawn(frames)
    for t in range(1, frames):
        old = np.flatnonzero((lives.begin < t) & (last >= t - 1))
        reach = np.where((lives.fate == DIES) & (lives.event_at < t), 0.0, radii[t])
        centre[t, old], velocity[old] = dynamics.advance(centre[t - 1, old], velocity[old], reach[old])
        angle[t] = angle[t - 1] + spins[t]
        born = np.flatnonzero(lives.begin == t)
        mother = lives.parent[born]
        side = np.where(np.arange(len(born)) % 2, 1.0, -1.0)[:, None]  # sisters are neighbours
        tilt = angle[t, mother]
        away = side * np.stack([np.cos(tilt), -np.sin(tilt)], axis=1)  # across the plate
        size = radii[t - 1, mother, None]
        centre[t, born] = np.clip(centre[t, mother] + BIRTH_GAP * size * away, 0, dynamics.limit)
        velocity[born] = velocity[mother] + BIRTH_SPEED * size * away
        angle[t, born] = tilt + rng.normal(0, 0.15, len(born))
    return Paths(centre, angle)


@dataclass(frozen=True)
class _Dynamics:
    limit: Floats  # largest y and x
    speed: float  # standard deviation of the velocity per axis, pixels per frame
    rng: np.random.Generator

    def advance(self, centre: Floats, velocity: Floats, radii: Floats) -> tuple[Floats, Floats]:
        """One frame of the BAOAB splitting of Langevin dynamics (Leimkuhler, Matthews 2013)."""
        step, keep = 1 / SUBSTEPS, exp(-FRICTION / SUBSTEPS)
        for _ in range(SUBSTEPS):
            velocity = velocity + step / 2 * _repulsion(centre, radii)
            centre, velocity = self._drift(centre, velocity, step / 2)
            kick = self.speed * self.rng.normal(size=velocity.shape)
            velocity = keep * velocity + sqrt(1 - keep**2) * kick
            centre, velocity = self._drift(centre, velocity, step / 2)
            velocity = velocity + step / 2 * _repulsion(centre, radii)
        return centre, velocity

    def _drift(self, centre: Floats, velocity: Floats, step: float) -> tuple[Floats, Floats]:
        centre = centre + step * velocity
        outside = (centre < 0) | (centre > self.limit)
        centre = np.clip(np.where(centre < 0, -centre, centre), 0, None)
        centre = np.clip(np.where(centre > self.limit, 2 * self.limit - centre, centre), 0, None)
        return centre, np.where(outside, -velocity, velocity)


def _repulsion(centre: Floats, radii: Floats) -> Floats:
    """Spring forces (N, 2) between nuclei in contact; those of radius 0 feel and exert none."""
    apart = centre[:, None] - centre[None]
    distance = np.sqrt((apart**2).sum(axis=-1)) + 1e-9
    touching = (radii[:, None] > 0) & (radii > 0)
    overlap = np.where(touching, CONTACT * (radii[:, None] + radii) - distance, 0.0).clip(min=0)
    forces: Floats = STIFFNESS * ((overlap / distance)[..., None] * apart).sum(axis=1)
    return forces
