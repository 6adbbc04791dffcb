"""What every backbone is: a 2D network applied to each frame alone."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Maps frames (N, C, H, W) of any size to features at 1 / stride of their resolution.

    A backbone says what is special to it in `dense`, for sizes that `divisor` divides.
    """

    def __init__(self, out_channels: int, stride: int, divisor: int) -> None:
        super().__init__()
        self.out_channels, self.stride, self.divisor = out_channels, stride, divisor

    @abstractmethod
    def dense(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H / stride, W / stride)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

        The border is replicated up to the next size that pools evenly, as much on either side, as published.
        """
        stride, (height, width) = self.stride, x.shape[-2:]
        pad = [-side % self.divisor for side in (height, width)]
        before = [side // 2 // stride * stride for side in pad]
        if any(pad):
            sides = [before[1], pad[1] - before[1], before[0], pad[0] - before[0]]
            x = nn.functional.pad(x, sides, mode="replicate")
        x = self.dense(x)
        top, left = (side // stride for side in before)
        return x[..., top : top - (-height // stride), left : left - (-width // stride)]
