"""Augmentation of whole batches on the device that trains.

Everything is drawn from a generator of the caller, so that a step's batch is a pure
function of (seed, epoch, step, rank).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Amounts of the mode "paper": of a whole pair and, as _OWN, of each of its frames.
_ZOOM, _OWN_ZOOM = (0.8, 1.25), (0.9, 10 / 9)
_OWN_SHIFT = 0.03  # of a crop's width
_BEND = 5.0  # pixels: tarrow's 10 are of half a crop's width
_NOISE = 0.05
_INTENSITY, _OWN_INTENSITY = ((4 / 5, 5 / 4), 0.1), ((9 / 10, 10 / 9), 0.05)  # scale and shift


def augment(pairs: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Augments crops of S frames.

    Args:
        pairs: (B, S, H, W) or (B, S, C, H, W) float32 with H = W, on the generator's device.
        mode: "none"; "light": flips, quarter turns and intensity; "paper": as published (arXiv 2411.03924,
            section 3, with the amounts of weigertlab/tarrow, augmentation 5): flips; rotation by any angle
            and scale 0.8-1.25; shift by 3 % and scale 0.9-1.11 of single frames; elastic deformation; noise;
            intensity of single frames and of all; each with probability 1/2.
    """
    if mode == "none":
        return pairs
    planes = pairs.flatten(1, -3)  # frames, or channels of frames
    if mode == "light":
        return _intensity(_dihedral(planes, generator), generator).view(pairs.shape)
    planes = _noise(_resample(planes, pairs.shape[1], generator), generator)
    for columns, amounts in ((planes.shape[1], _OWN_INTENSITY), (1, _INTENSITY)):
        planes = _rescale(planes, columns, *amounts, generator)
    return planes.view(pairs.shape)


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


def _intensity(pairs: Tensor, generator: torch.Generator) -> Tensor:
    """Scale and shift, global and per plane; what is added up has four coins."""
    batch, planes = pairs.shape[:2]
    scale = 1 + _sometimes(batch, 1, 0.3, generator) + _sometimes(batch, planes, 0.1, generator)
    shift = _sometimes(batch, 1, 0.2, generator) + _sometimes(batch, planes, 0.1, generator)
    return pairs * scale[..., None, None] + shift[..., None, None]


def _rescale(
    pairs: Tensor, columns: int, scale: tuple[float, float], shift: float, generator: torch.Generator
) -> Tensor:
    """Intensities of half of the pairs, of each plane its own or (one column) of all planes the same.

    Scale and shift share a coin.
    """
    coin, shape = _coin(len(pairs), generator)[:, None], (len(pairs), columns)
    scales = torch.where(coin, _between(*scale, shape, generator), 1.0)
    shifts = torch.where(coin, shift * _between(-1, 1, shape, generator), 0.0)
    return pairs * scales[..., None, None] + shifts[..., None, None]


def _noise(pairs: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform, of at most `_NOISE`, on half of the pairs."""
    amount = _NOISE * _rand((len(pairs),), generator) * _coin(len(pairs), generator)
    return pairs + amount[:, None, None, None] * _rand(pairs.shape, generator)


def _resample(pairs: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """All geometry composed into one grid, so that pixels are interpolated once.

    What moves single frames moves all channels of a frame alike. The grid's unit is half a crop.
    """
    batch, planes, height, width = pairs.shape
    theta = torch.zeros(batch, frames, 2, 3, device=pairs.device)
    coin = _coin(batch, generator)[:, None]
    own = torch.where(coin, _between(*_OWN_ZOOM, (batch, frames), generator), 1.0)
    theta[..., :2] = _turn(batch, generator)[:, None] / own[..., None, None]
    moved = 2 * _OWN_SHIFT * _between(-1, 1, (batch, frames, 2), generator)
    theta[..., 2] = torch.where(coin[..., None], moved, 0.0)
    grid = F.affine_grid(theta.flatten(0, 1), [batch * frames, 1, height, width], align_corners=False)
    bend = _between(-1, 1, (batch, 2, 5, 5), generator)
    bend = bend * _coin(batch, generator)[:, None, None, None] * (2 * _BEND / width)
    bend = F.interpolate(bend, size=(height, width), mode="bilinear", align_corners=True)
    grid = grid + bend.movedim(1, -1).repeat_interleave(frames, 0)
    out = F.grid_sample(
        pairs.reshape(batch * frames, planes // frames, height, width),
        grid,
        padding_mode="reflection",
        align_corners=False,
    )
    return out.view_as(pairs)


def _turn(batch: int, generator: torch.Generator) -> Tensor:
    """(batch, 2, 2) from a pair's new places to its old ones: mirrored, turned and scaled."""
    coin = _coin(batch, generator)
    angle = torch.where(coin, torch.pi * _between(-1, 1, (batch,), generator), 0.0)
    zoom = torch.where(coin, _between(*_ZOOM, (batch,), generator), 1.0)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    mirrored = 1 - 2 * torch.stack([_coin(batch, generator) for _ in range(2)], 1).float()
    return turn * mirrored[:, None]


def _rand(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1) on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device)


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform from low to high."""
    return low + (high - low) * _rand(shape, generator)


def _coin(batch: int, generator: torch.Generator) -> Tensor:
    """(batch,) true with probability 1/2."""
    return _rand((batch,), generator) < 0.5


def _sometimes(batch: int, columns: int, amount: float, generator: torch.Generator) -> Tensor:
    """(batch, columns) uniform in [-amount, amount], 0 for half of the rows."""
    values = _between(-1, 1, (batch, columns), generator) * amount
    return values * _coin(batch, generator)[:, None]
