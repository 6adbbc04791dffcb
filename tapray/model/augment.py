"""Augmentation of whole batches on the device that trains.

Everything is drawn from a generator of the caller, so that a step's batch is a pure
function of (seed, epoch, step, rank).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(pairs: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Augments crops of S frames.

    Args:
        pairs: (B, S, H, W) or (B, S, C, H, W) float32 with H = W, on the generator's device.
        mode: "none"; "light": flips, quarter turns and intensity; "paper": flips, rotation by any
            angle, scale 0.8-1.25, small independent shift and scale per frame, elastic
            deformation, noise, intensity (arXiv 2411.03924, section 3; each with probability 1/2).
    """
    if mode == "none":
        return pairs
    planes = pairs.flatten(1, -3)  # frames, or channels of frames
    frames = pairs.shape[1]
    planes = _resample(planes, frames, generator) if mode == "paper" else _dihedral(planes, generator)
    return _intensity(planes, generator, noise=mode == "paper").view(pairs.shape)


def roll(crops: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rolls the S frames of each crop by 0 to S - 1, all as likely: a pair is swapped or not.

    Returns:
        The crops and (B,) int64, the place of the frame that is first in time.
    """
    batch, frames = crops.shape[:2]
    first = (frames - 1) - (frames * _rand((batch,), generator)).long()
    order = (torch.arange(frames, device=crops.device) - first[:, None]) % frames
    return crops[torch.arange(batch, device=crops.device)[:, None], order], first


def _dihedral(pairs: Tensor, generator: torch.Generator) -> Tensor:
    """One of the eight symmetries of the square for each pair, the same for all frames."""
    for dims in ((-1,), (-2,)):
        pairs = torch.where(_coin(len(pairs), generator)[:, None, None, None], pairs.flip(dims), pairs)
    turned = pairs.transpose(-1, -2)
    return torch.where(_coin(len(pairs), generator)[:, None, None, None], turned, pairs)


def _intensity(pairs: Tensor, generator: torch.Generator, *, noise: bool) -> Tensor:
    """Scale and shift, global and per plane, and uniform noise."""
    batch, planes = pairs.shape[:2]
    scale = 1 + _sometimes(batch, 1, 0.3, generator) + _sometimes(batch, planes, 0.1, generator)
    shift = _sometimes(batch, 1, 0.2, generator) + _sometimes(batch, planes, 0.1, generator)
    pairs = pairs * scale[..., None, None] + shift[..., None, None]
    if noise:
        amount = _coin(batch, generator)[:, None, None, None] * 0.05
        pairs = pairs + amount * (2 * _rand(pairs.shape, generator) - 1)
    return pairs


def _resample(pairs: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """All geometry composed into one grid, so that pixels are interpolated once.

    What moves single frames moves all channels of a frame alike.
    """
    batch, planes, height, width = pairs.shape
    angle = _sometimes(batch, 1, torch.pi, generator).squeeze(1)
    zoom = torch.exp(_sometimes(batch, 1, 0.223, generator).squeeze(1))  # 0.8 to 1.25
    flip = 1 - 2 * _coin(batch, generator).float()
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shared = torch.stack([torch.stack([cos * flip, -sin], 1), torch.stack([sin * flip, cos], 1)], 1)
    own = 1 + _sometimes(batch, frames, 0.02, generator)
    theta = torch.zeros(batch, frames, 2, 3, device=pairs.device)
    theta[..., :2] = shared[:, None] * own[..., None, None]
    theta[..., 2] = torch.stack([_sometimes(batch, frames, 2 * 2 / width, generator) for _ in range(2)], -1)
    grid = F.affine_grid(theta.flatten(0, 1), [batch * frames, 1, height, width], align_corners=False)
    bend = 2 * _rand((batch, 2, 5, 5), generator) - 1
    bend = bend * _coin(batch, generator)[:, None, None, None] * (10 * 2 / width)
    bend = F.interpolate(bend, size=(height, width), mode="bicubic", align_corners=True)
    grid = grid + bend.movedim(1, -1).repeat_interleave(frames, 0)
    out = F.grid_sample(
        pairs.reshape(batch * frames, planes // frames, height, width),
        grid,
        padding_mode="reflection",
        align_corners=False,
    )
    return out.view_as(pairs)


def _rand(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1) on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device)


def _coin(batch: int, generator: torch.Generator) -> Tensor:
    """(batch,) true with probability 1/2."""
    return _rand((batch,), generator) < 0.5


def _sometimes(batch: int, columns: int, amount: float, generator: torch.Generator) -> Tensor:
    """(batch, columns) uniform in [-amount, amount], 0 for half of the rows."""
    values = (2 * _rand((batch, columns), generator) - 1) * amount
    return values * _coin(batch, generator)[:, None]
