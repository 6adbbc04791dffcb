"""Backbones: a 2D network applied to each frame alone, found by name.

A backbone is added here: one function that returns a module mapping (N, 1, H, W) to
(N, C, h, w), registered under a preset name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from tapray.errors import UserError

Padding = Literal["zeros", "replicate"]


def _block(c_in: int, c_out: int, padding_mode: Padding) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c in (c_in, c_out):
        layers += [
            nn.Conv2d(c, c_out, 3, padding=1, padding_mode=padding_mode),
            nn.BatchNorm2d(c_out),
            nn.LeakyReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """2D U-Net: `depth` max-poolings, widths doubling from `width`, skip connections.

    `stem_stride` > 1 puts a strided convolution in front, so that the dense features have
    1/stem_stride of the input's resolution and cost that factor squared less.
    Source: arXiv 2305.05511, section 2 and its published code (width 32, no stem).
    """

    def __init__(
        self,
        width: int,
        out_channels: int,
        *,
        stem_stride: int = 1,
        depth: int = 3,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride, self.divisor = stem_stride, stem_stride * 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.stem: nn.Module = nn.Identity()
        c_in = 1
        if stem_stride > 1:
            self.stem = nn.Sequential(
                nn.Conv2d(1, width, 2 * stem_stride + 1, stem_stride, stem_stride, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(inplace=True),
            )
            c_in = width
        self.down = nn.ModuleList(
            _block(c, w, padding_mode) for c, w in zip([c_in, *widths[:-1]], widths, strict=True)
        )
        last = max(width, out_channels)
        self.up = nn.ModuleList(
            _block(widths[i] + widths[i + 1], widths[i] if i else last, padding_mode) for i in range(depth)
        )
        self.head = nn.Conv2d(last, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, C, ceil(H / stem_stride), ceil(W / stem_stride))."""
        stride, (height, width) = self.stride, x.shape[-2:]
        pad = [-side % self.divisor for side in (height, width)]
        before = [side // 2 // stride * stride for side in pad]  # as much on either side, as published
        if any(pad):  # replicate the border up to the next size that pools evenly
            sides = [before[1], pad[1] - before[1], before[0], pad[0] - before[0]]
            x = nn.functional.pad(x, sides, mode="replicate")
        x = self.stem(x)
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if i else x)
            skips.append(x)
        x = skips.pop()
        for block in reversed(self.up):
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skips.pop(), x], dim=1))
        x = self.head(x)
        top, left = (side // stride for side in before)
        return x[..., top : top - (-height // stride), left : left - (-width // stride)]


PRESETS: dict[str, Callable[[], UNet]] = {
    "unet-32": lambda: UNet(32, 32, padding_mode="replicate"),  # published, about 1.96 M parameters
    "unet-16": lambda: UNet(16, 32),
    "unet-16s2": lambda: UNet(16, 32, stem_stride=2),
    "unet-12s2": lambda: UNet(12, 32, stem_stride=2),
    "unet-8s2": lambda: UNet(8, 32, stem_stride=2),
}


def build_backbone(preset: str) -> UNet:
    """The backbone of that preset name, freshly initialised.

    Raises:
        UserError: the name is not a preset.
    """
    if preset not in PRESETS:
        raise UserError(
            f"unknown preset '{preset}'", where="pretrain.preset", todo=f"use one of {', '.join(PRESETS)}"
        )
    return PRESETS[preset]()
