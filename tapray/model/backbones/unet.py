"""The published backbone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tapray.model.backbones.base import Backbone

Padding = Literal["zeros", "replicate"]


class _Conv(nn.Conv2d):
    """3x3, as wide as before.

    Compiled, replicated borders are put together from slices: on the CPU PyTorch 2.13 fails in the backward
    pass of its own operator for them, whose memory layout it takes for another.
    """

    def __init__(self, c_in: int, c_out: int, padding_mode: Padding) -> None:
        super().__init__(c_in, c_out, 3, padding=1, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "replicate" or not torch.compiler.is_compiling():
            return super().forward(x)
        x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)
        x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
        return nn.functional.conv2d(x, self.weight, self.bias)


def _block(c_in: int, c_out: int, padding_mode: Padding) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c in (c_in, c_out):
        layers += [
            _Conv(c, c_out, padding_mode),
            nn.BatchNorm2d(c_out),
            nn.LeakyReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(Backbone):
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
        channels: int = 1,
        stem_stride: int = 1,
        depth: int = 3,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__(out_channels, stem_stride, stem_stride * 2**depth)
        widths = [width * 2**level for level in range(depth + 1)]
        self.stem: nn.Module = nn.Identity()
        c_in = channels
        if stem_stride > 1:
            self.stem = nn.Sequential(
                nn.Conv2d(channels, width, 2 * stem_stride + 1, stem_stride, stem_stride, bias=False),
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

    def dense(self, x: Tensor) -> Tensor:
        """As in `Backbone`."""
        x = self.stem(x)
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if i else x)
            skips.append(x)
        x = skips.pop()
        for block in reversed(self.up):
            x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skips.pop(), x], dim=1))
        features: Tensor = self.head(x)
        return features
