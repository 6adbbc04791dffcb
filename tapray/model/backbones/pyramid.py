"""Backbones of stages at falling resolution, brought together by a feature pyramid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tapray.model.backbones.base import Backbone

STRIDE = 2  # of the stem


class Pyramid(Backbone):
    """Stages of widths `widths`, each at half the resolution of the one before, the first at half that of x.

    From the last on, what a stage found is added to the finer one before it, all in `width` channels.
    Source: Lin et al. 2017 (feature pyramid networks).

    Args:
        stage: makes the part of the net from c_in to c_out channels at 1 / stride of the resolution.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        out_channels: int,
        channels: int,
        stage: Callable[[int, int, int], nn.Module],
    ) -> None:
        super().__init__(out_channels, STRIDE, STRIDE * 2 ** (len(widths) - 1))
        inputs = [channels, *widths[:-1]]
        self.stages = nn.ModuleList(stage(c, w, 2) for c, w in zip(inputs, widths, strict=True))
        self.lateral = nn.ModuleList(nn.Conv2d(w, widths[0], 1) for w in widths)
        self.head = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def dense(self, x: Tensor) -> Tensor:
        """As in `Backbone`."""
        found: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            found.append(lateral(x))
        y = found.pop()
        while found:
            y = found.pop() + F.interpolate(y, scale_factor=2.0, mode="nearest")
        features: Tensor = self.head(F.leaky_relu(y))
        return features


class Residual(nn.Module):
    """Two convolutions and what goes past them (He et al. 2016)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.past = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H / stride, W / stride)."""
        return F.leaky_relu(self.body(x) + self.past(x))


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNeXtBlock(nn.Module):
    """A wide depthwise convolution, then a small perceptron in every place (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            _ChannelNorm(width),
            nn.Conv2d(width, 4 * width, 1),
            nn.GELU(),
            nn.Conv2d(4 * width, width, 1),
        )
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        out: Tensor = x + self.scale * self.body(x)
        return out


def resnet(widths: tuple[int, ...], out_channels: int, channels: int) -> Pyramid:
    """A residual block a stage."""
    return Pyramid(widths, out_channels, channels, Residual)


def convnext(widths: tuple[int, ...], out_channels: int, channels: int) -> Pyramid:
    """A ConvNeXt block a stage, after its patches were taken."""

    def stage(c_in: int, c_out: int, stride: int) -> nn.Module:
        patches = nn.Conv2d(c_in, c_out, stride, stride)
        return nn.Sequential(patches, _ChannelNorm(c_out), ConvNeXtBlock(c_out))

    return Pyramid(widths, out_channels, channels, stage)
