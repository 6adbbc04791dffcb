"""Dense features of whole frames, by tiles, and how far they see."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tapray.config import Layer
from tapray.model.backbones import build_backbone
from tapray.model.backbones.base import Backbone
from tapray.model.tap import TapNet

TILE = 512  # pixels of a tile's side, without what it sees beyond
MOST = 256  # pixels that no backbone sees beyond


@lru_cache(maxsize=16)
def halo(preset: str) -> int:
    """Pixels beyond a feature's own place that it depends on: half of the receptive field, rounded up.

    Found by sending single pixels through the net with every weight positive, so that nothing cancels: each
    of those of a place of its coarsest grid.
    """
    backbone = _positive(build_backbone(preset)).double()
    step, stride, far = backbone.divisor, backbone.stride, 0
    middle = MOST // step * step
    line = torch.zeros(1, 1, 2 * middle, step, dtype=torch.float64)
    for pixel in range(middle, middle + step):
        line.zero_()[..., pixel, 0] = 1
        with torch.no_grad():
            seen = torch.nonzero(backbone.dense(line).abs().sum(dim=(0, 1, 3))).flatten() * stride
        far = max(far, pixel - int(seen.min()) - stride + 1, int(seen.max()) - pixel)
    return far


def reach(preset: str) -> int:
    """Pixels beyond a crop that its features depend on, where they are cut from those of its whole frame.

    A crop between two places begins at the place before it.
    """
    return halo(preset) + build_backbone(preset).stride - 1


def _positive(backbone: Backbone) -> Backbone:
    """A copy through which every pixel leaves a trace in all that depends on it."""
    made = copy.deepcopy(backbone).eval()
    for module in made.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.LayerNorm):
                setattr(module, name, nn.Identity())
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return made


@torch.no_grad()
def dense_features(
    encode: Callable[[Tensor], Tensor], frame: Tensor, stride: int, divisor: int, beyond: int
) -> Tensor:
    """Features (C, ceil(H / stride), ceil(W / stride)) of a frame, the same whatever the size of the tiles.

    Args:
        encode: (B, 1, ..., h, w) -> (B, 1, C, h / stride, w / stride), for sizes that divisor divides.
        frame: (H, W) or (channels, H, W) float32, normalised.
        beyond: pixels that a feature depends on beyond its place (`halo`).
    """
    height, width = frame.shape[-2:]
    sides = (0, -width % divisor, 0, -height % divisor)
    padded = F.pad(frame.reshape(1, -1, height, width), sides, mode="replicate")[0]
    padded = padded.view(*frame.shape[:-2], *padded.shape[-2:])
    margin = margin_for(beyond, divisor)
    rows = []
    for top, bottom in _spans(padded.shape[-2], divisor):
        above = max(0, top - margin)
        row = []
        for left, right in _spans(padded.shape[-1], divisor):
            before = max(0, left - margin)
            tile = encode(padded[None, None, ..., above : bottom + margin, before : right + margin])[0, 0]
            at = [(side // stride) for side in (top - above, bottom - above, left - before, right - before)]
            row.append(tile[:, at[0] : at[1], at[2] : at[3]])
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)[:, : -(-height // stride), : -(-width // stride)]


def margin_for(beyond: int, divisor: int) -> int:
    """Pixels to take around a tile or crop, so that what is kept sees all and the grid stays."""
    return -(-beyond // divisor) * divisor


def frame_features(net: TapNet, frame: Tensor, layer: Layer = Layer.PROJECTION) -> Tensor:
    """As `dense_features`, of a time arrow net in eval mode."""
    encode, backbone = partial(net.features, layer=layer), net.backbone
    return dense_features(encode, frame, backbone.stride, backbone.divisor, halo(net.preset))


def _spans(length: int, divisor: int) -> list[tuple[int, int]]:
    step = -(-TILE // divisor) * divisor
    return [(start, min(start + step, length)) for start in range(0, length, step)]
