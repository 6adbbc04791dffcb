"""Simulated microscopy of nuclei: their shapes through life, their texture, optics and camera."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import exp, log

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from tapray.config import SimulateConfig
from tapray.data.sim_motion import DIES, FADE_FRAMES, Floats, Ints, Lives, Paths, wander

BLEBS = 6  # fragments of a dead nucleus, some of them tiny
GRID = 36  # texture samples per axis, over +-1.25 semi-axes
WINDOW = 1.3  # half a nucleus's window in longest semi-axes
LIGHT, SKY = 140.0, 25.0  # mean electrons per pixel of an interphase nucleus and of the background
HAZE = 0.04  # share of the light that is scattered widely
BUMPS = np.array([0.04, 0.035, 0.02])  # of the outline, of order 2 to 4
PSF = 1.1  # pixels
BLEACHED = 0.015  # share of the light lost over the movie; at 0.05 the noise tells the direction of time
OFFSET, GAIN, READ_NOISE = 100.0, 2.0, 3.0  # counts, counts per electron, electrons

# What a nucleus goes through, by frames from its event (DIVISION, DEATH: 0 is the last frame as
# one body) or from its birth. Rows: frames, area, pull towards the aspect ratio, that ratio,
# texture contrast, roughness of the outline.
DIVISION = np.array(
    [
        [-4, -3, -2, -1, 0],
        [1, 0.93, 0.8, 0.6, 0.36],
        [0, 0.2, 0.6, 1, 1],
        [1.2, 1.2, 1.15, 1.3, 2.7],
        [1, 1.3, 1.9, 1.5, 0.5],
        [1, 1, 1, 1.2, 0.7],
    ]
)
DEATH = np.array(
    [
        [-5, -4, -3, -2, -1, 0],
        [1, 0.92, 0.78, 0.62, 0.48, 0.38],
        [0, 0.2, 0.5, 0.8, 1, 1],
        [1.05, 1.05, 1.05, 1.05, 1.05, 1.05],
        [1, 1, 0.8, 0.6, 0.4, 0.3],
        [1, 0.9, 0.7, 0.5, 0.4, 0.4],
    ]
)
BIRTH = np.array(
    [
        [0, 1, 2, 3, 4, 5],
        [0.45, 0.62, 0.78, 0.9, 0.96, 1],
        [1, 0.9, 0.7, 0.45, 0.2, 0],
        [2.4, 2, 1.7, 1.5, 1.3, 1.2],
        [0.5, 0.6, 0.8, 1, 1, 1],
        [0.7, 0.8, 1, 1, 1, 1],
    ]
)
FADING = np.array([1.0, 0.75, 0.5, 0.28, 0.12])  # brightness of fragments, by frames since the first
SCATTER = np.array([1.0, 1.25, 1.4, 1.5, 1.55])  # their distance from the centre, in its radii


@dataclass(frozen=True)
class Bodies:
    """Ellipses to draw, one entry per body, sorted by frame and from large to small."""

    frame: Ints  # (B,)
    owner: Ints  # (B,) index of the nucleus
    tracked: NDArray[np.bool_]  # (B,) False for fragments after the end of the track
    centre: Floats  # (B, 2) y, x
    axes: Floats  # (B, 2) long and short semi-axis
    angle: Floats  # (B,)
    light: Floats  # (B,) electrons per pixel
    contrast: Floats  # (B,) of the texture
    outline: NDArray[np.complex128]  # (B, 3) Fourier coefficients of order 2 to 4
    blur: Floats  # (B,) softness of the edge in pixels

    def take(self, index: Ints | slice) -> Bodies:
        """The bodies of that index."""
        return Bodies(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def shape_bodies(lives: Lives, radii: Floats, paths: Paths, rng: np.random.Generator) -> Bodies:
    """The bodies of all nuclei in all frames; ``radii`` (T, N) are those before condensation."""
    frames, total = radii.shape
    time = np.arange(frames)[:, None]
    pace = rng.uniform(0.85, 1.2, total)  # of condensation
    before = np.minimum(time - lives.event_at, 0) / pace
    stage = np.where(lives.fate == DIES, _look(DEATH, before), _look(DIVISION, before))
    fresh = _look(BIRTH, np.where(lives.parent < 0, BIRTH[0, -1], time - lives.begin))
    area, contrast, rough = (stage * fresh)[[0, 3, 4]]
    own = np.abs(0.25 + 0.1 * rng.normal(size=total) + 0.05 * wander(frames, (total,), 0.8, rng))
    stretch = (1 - fresh[1]) * own + fresh[1] * np.log(fresh[2])  # log of the aspect ratio
    stretch = (1 - stage[1]) * stretch + stage[1] * np.log(stage[2])
    defocus = (0.5 * rng.normal(size=total) + 0.4 * wander(frames, (total,), 0.8, rng)) ** 2
    bright = np.exp(lives.inherited(0.35, 0.08, rng)) * (1 + 0.03 * wander(frames, (total,), 0.5, rng))
    bumps = rng.normal(size=(total, 3, 2)) + 0.5 * wander(frames, (total, 3, 2), 0.8, rng)
    outline = BUMPS * (bumps[..., 0] + 1j * bumps[..., 1]) * rough[..., None]
    size = radii * np.sqrt(area)
    whole = (time >= lives.begin) & (time <= lives.event_at)
    t, n = np.nonzero(whole)
    bodies = Bodies(
        frame=t,
        owner=n,
        tracked=np.ones(len(t), dtype=bool),
        centre=paths.centre[t, n],
        axes=np.stack([size * np.exp(stretch / 2), size * np.exp(-stretch / 2)], axis=-1)[t, n],
        angle=paths.angle[t, n],
        light=(LIGHT * bright * area**-0.85)[t, n],  # condensing keeps nearly all of the light
        contrast=(0.2 * contrast * np.exp(-0.5 * defocus))[t, n],
        outline=outline[t, n],
        blur=(0.45 + 0.5 * defocus)[t, n],
    )
    return _merge(bodies, _fragments(lives, bodies, paths, frames, rng))


def _look(stages: Floats, when: Floats) -> Floats:
    """The rows of a table of stages after the first, interpolated: (rows, *when.shape)."""
    return np.stack([np.interp(when, stages[0], row) for row in stages[1:]])


def _fragments(lives: Lives, bodies: Bodies, paths: Paths, frames: int, rng: np.random.Generator) -> Bodies:
    """``BLEBS`` round bright blebs per dead nucleus that move apart and fade."""
    last = bodies.take(
        np.flatnonzero((lives.fate == DIES)[bodies.owner] & (bodies.frame == lives.event_at[bodies.owner]))
    )
    corpses = len(last.frame)
    share = rng.dirichlet(np.full(BLEBS, 1.5), corpses)
    bearing = 2 * np.pi / BLEBS * (np.arange(BLEBS) + rng.uniform(0, 0.8, (corpses, BLEBS)))
    bearing += rng.uniform(0, 2 * np.pi, (corpses, 1))
    reach = rng.uniform(0.3, 1.5, bearing.shape)
    corpse, since, bleb = (grid.ravel() for grid in np.indices((corpses, FADE_FRAMES + 1, BLEBS)))
    seen = last.frame[corpse] + 1 + since < frames
    corpse, since, bleb = corpse[seen], since[seen], bleb[seen]
    frame, owner = last.frame[corpse] + 1 + since, last.owner[corpse]
    radius = np.sqrt(last.axes.prod(axis=1))[corpse]
    turned = bearing[corpse, bleb] + paths.angle[frame, owner]
    out = (radius * reach[corpse, bleb] * SCATTER[since])[:, None]
    size = np.maximum(radius * np.sqrt(share[corpse, bleb]), 1.0)
    return Bodies(
        frame=frame,
        owner=owner,
        tracked=since == 0,
        centre=paths.centre[frame, owner] + out * np.stack([np.sin(turned), np.cos(turned)], axis=-1),
        axes=np.stack([size, size], axis=-1),
        angle=turned,
        light=0.9 * last.light[corpse] * FADING[since],
        contrast=last.contrast[corpse],
        outline=last.outline[corpse],
        blur=last.blur[corpse],
    )


def _merge(first: Bodies, second: Bodies) -> Bodies:
    joined = Bodies(
        **{f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)]) for f in fields(Bodies)}
    )
    return joined.take(np.lexsort([-joined.axes.prod(axis=1), joined.frame]))


def make_textures(total: int, rng: np.random.Generator) -> Floats:
    """Chromatin of each nucleus (N, GRID, GRID): coarse and fine grain, mean 0, unit variance."""
    noise = rng.normal(size=(2, total, GRID, GRID))
    grains = [gaussian_filter(noise[k], (0, s, s)) for k, s in enumerate((3.5, 1.6))]
    scaled = [(g - g.mean(axis=(1, 2), keepdims=True)) / g.std(axis=(1, 2), keepdims=True) for g in grains]
    return np.asarray(0.8 * scaled[0] + 0.6 * scaled[1]).clip(-2.5, 2.5)


def draw_frame(bodies: Bodies, textures: Floats, shape: tuple[int, int]) -> tuple[Floats, NDArray[np.uint16]]:
    """Draw the bodies of one frame: light (H, W) in electrons before optics, and labels (H, W)."""
    half = int(np.ceil(WINDOW * bodies.axes.max(initial=1.0) + 4))
    corner = np.rint(bodies.centre).astype(np.int64)
    near = ((corner >= -half) & (corner < np.array(shape) + half)).all(axis=1)  # else out of sight
    bodies, corner = bodies.take(np.flatnonzero(near)), corner[near]
    light = np.zeros((shape[0] + 4 * half, shape[1] + 4 * half))
    labels = np.zeros(light.shape, dtype=np.uint16)
    span = np.arange(-half, half + 1)
    shift = (bodies.centre - corner)[..., None, None]
    down, right = span[:, None] - shift[:, 0], span - shift[:, 1]
    cos, sin = np.cos(bodies.angle)[:, None, None], np.sin(bodies.angle)[:, None, None]
    along = (right * cos + down * sin) / bodies.axes[:, 0, None, None]
    across = (down * cos - right * sin) / bodies.axes[:, 1, None, None]
    unit = (along + 1j * across) / np.maximum(np.hypot(along, across), 1e-6)
    ratio = bodies.axes[:, 0] / bodies.axes[:, 1]
    power = (2 + np.clip(ratio - 1.6, 0, 1))[:, None, None]  # plates have blunt ends
    rho = (np.abs(along) ** power + np.abs(across) ** power) ** (1 / power)
    a, b, c = bodies.outline.conj().T[..., None, None]
    edge = 1 + (unit**2 * (a + unit * (b + unit * c))).real
    depth = (edge - rho) * np.sqrt(bodies.axes.prod(axis=1))[:, None, None]  # pixels, inside positive
    owner = np.broadcast_to(bodies.owner[:, None, None], rho.shape)
    texel = (GRID - 1) / 2 * (1 + np.stack([across, along]) / 1.25)
    texture = map_coordinates(textures, [owner, *texel], order=1, mode="nearest")
    profile = 1 / (1 + np.exp(-np.clip(depth / bodies.blur[:, None, None], -30, 30)))
    profile *= (1 - 0.25 * np.minimum(rho, 1) ** 2) * bodies.light[:, None, None]
    profile *= np.maximum(1 + bodies.contrast[:, None, None] * texture, 0.1)
    for k, (y, x) in enumerate(corner + half):
        window = np.s_[y : y + 2 * half + 1, x : x + 2 * half + 1]
        light[window] += profile[k]
        if bodies.tracked[k]:
            labels[window][depth[k] > 0] = bodies.owner[k] + 1
    inner = np.s_[2 * half : 2 * half + shape[0], 2 * half : 2 * half + shape[1]]
    return light[inner], labels[inner]


class Camera:
    """Optics and camera of one field of view. What changes with time is stationary, save bleaching."""

    def __init__(self, config: SimulateConfig, rng: np.random.Generator) -> None:
        y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (config.height, config.width)), indexing="ij")
        centre = rng.uniform(-0.4, 0.4, 2)
        self.exposure = config.light / LIGHT
        self.illumination = 1.05 - 0.12 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2)
        self.focus = PSF * np.exp(0.1 * wander(config.frames, (), 0.7, rng))
        self.lamp = 1 + 0.01 * wander(config.frames, (), 0.5, rng)
        self.bleach = log(1 - BLEACHED) / max(config.frames - 1, 1)
        self.rng = rng

    def expose(self, light: Floats, frame: int) -> NDArray[np.uint16]:
        """Light (H, W) in electrons to counts (H, W) with shot noise and read noise."""
        glow = gaussian_filter(light[::2, ::2], 6 * PSF).repeat(2, axis=0).repeat(2, axis=1)
        glow = glow[: light.shape[0], : light.shape[1]]
        seen = (1 - HAZE) * gaussian_filter(light, self.focus[frame]) + HAZE * glow
        seen = (seen + SKY) * self.exposure * self.illumination * self.lamp[frame] * exp(self.bleach * frame)
        electrons = self.rng.poisson(seen) + READ_NOISE * self.rng.normal(size=seen.shape)
        counts = np.rint(OFFSET + GAIN * electrons).clip(0, 65535)
        return np.asarray(counts, dtype=np.uint16)
