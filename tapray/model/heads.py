"""Event heads: from the dense features of both frames of a crop pair to class logits.

A head is added here: one class with `front`, a map without parameters that is computed
once per crop and kept, and `forward`, the part that is trained; registered in HEADS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tapray.config import HeadKind, Pooling


@dataclass(frozen=True)
class HeadOptions:
    """What may vary among heads of a kind; a kind that has no such thing ignores it."""

    dropout: float = 0.0
    width: int = 64
    pooling: Pooling = Pooling.CENTRE


DEFAULTS = HeadOptions()


class Dropout(nn.Module):
    """As `nn.Dropout` of inputs (B, width), but that its mask may be drawn beforehand.

    `mask` (B, width) is a buffer, so that heads that are trained as one have each their own, as they have
    weights. Where it is None, the global generator draws.
    """

    mask: Tensor | None

    def __init__(self, rate: float, width: int) -> None:
        super().__init__()
        self.rate, self.width = rate, width
        self.register_buffer("mask", None, persistent=False)

    def draw(self, batch: int, generator: torch.Generator) -> None:
        """The mask (batch, width) of the steps to come: 0 or, so that the mean stays, 1 / (1 - rate)."""
        self.mask = self._mask(torch.rand(batch, self.width, generator=generator))

    def _mask(self, chance: Tensor) -> Tensor:
        return (chance >= self.rate) / (1 - self.rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        if not self.training:
            return x
        return x * (self._mask(torch.rand_like(x)) if self.mask is None else self.mask)


class Head(nn.Module):
    """(B, 2, C, h, w) dense features -> front(...) -> forward(...) = (B, K) logits.

    condenses: whether `front` leaves much less than the features, so that it is worth keeping.
    stacks: whether many of it are trained as one faster than one by one (`tapray.study.fit.Training`): true
    of matrix products of few crops, not of convolutions.
    """

    condenses = False
    stacks = False

    def front(self, features: Tensor) -> Tensor:
        """The part without parameters; by default nothing."""
        return features

    def settle(self, fronts: Tensor) -> None:
        """Takes mean and spread from the fronts of training crops; no labels are needed."""
        raise NotImplementedError

    def settle_as(self, other: Head) -> None:
        """As another head of the same kind and features."""
        raise NotImplementedError


class ScaledHead(Head):
    """A head that sees each channel in units of its spread over training crops, once it is settled.

    Else an encoder would be good or bad for the scale of its features, which no learning rate fits alike.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def settle(self, fronts: Tensor) -> None:
        """Mean and spread of each channel of fronts (N, 2, C, h, w)."""
        spread, self.mean = torch.std_mean(fronts, dim=(0, 1, 3, 4))
        # a channel that is all but constant, beside the others, stays so
        self.scale = 1 / spread.clamp(min=max(1e-3 * float(spread.median()), 1e-6))

    def settle_as(self, other: Head) -> None:
        """As another head of the same kind and features."""
        assert isinstance(other, ScaledHead)
        self.mean, self.scale = other.mean.clone(), other.scale.clone()

    def scaled(self, fronts: Tensor) -> Tensor:
        """(B, 2, C, h, w) -> the same, each channel with mean 0 and spread 1 over training crops."""
        return (fronts - self.mean[:, None, None]) * self.scale[:, None, None]


class LinearHead(ScaledHead):
    """One fully connected layer on the flattened features (arXiv 2411.03924, section 2.3)."""

    stacks = True

    def __init__(self, channels: int, side: int, classes: int, options: HeadOptions) -> None:
        super().__init__(channels)
        self.out = nn.Linear(2 * channels * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K) from `front`.

        Weights are scaled in place of features, which heads that are trained together share.
        """
        weight = self.out.weight.view(-1, 2, len(self.scale), x.shape[3:].numel()) * self.scale[:, None]
        bias = self.out.bias - (weight * self.mean[:, None]).sum(dim=(1, 2, 3))
        return F.linear(x.flatten(1), weight.flatten(1), bias)


class ResNetHead(ScaledHead):
    """Conv 3x3 to 64 + BN + ReLU, one basic residual block, mean over frames and pixels, linear.

    Source: arXiv 2411.03924, section 2.3. `HeadOptions.width` stands for the 64.
    """

    def __init__(self, channels: int, side: int, classes: int, options: HeadOptions) -> None:
        super().__init__(channels)
        width = options.width
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.drop = Dropout(options.dropout, width)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K) from `front`."""
        y = self.stem(self.scaled(x).flatten(0, 1))
        y = F.relu(y + self.block(y)).mean(dim=(-2, -1)).view(*x.shape[:2], -1)
        logits: Tensor = self.out(self.drop(y.mean(dim=1)))
        return logits


class MlpHead(ScaledHead):
    """Features averaged on a 4 x 4 grid, flattened, one hidden layer."""

    condenses = True
    stacks = True

    def __init__(self, channels: int, side: int, classes: int, options: HeadOptions) -> None:
        super().__init__(channels)
        width, drop = options.width, Dropout(options.dropout, options.width)
        self.net = nn.Sequential(
            nn.Linear(2 * channels * 16, width), nn.ReLU(), drop, nn.Linear(width, classes)
        )

    def front(self, features: Tensor) -> Tensor:
        """(B, 2, C, 4, 4)."""
        return F.adaptive_avg_pool2d(features.flatten(0, 1), 4).view(*features.shape[:3], 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K) from `front`."""
        logits: Tensor = self.net(self.scaled(x).flatten(1))
        return logits


class PooledHead(Head):
    """A linear layer on statistics of the features around the crop's centre, or in the whole of it.

    Per channel and frame: mean and spread under two Gaussian windows (`HeadOptions.pooling`), maximum
    and minimum; then what both frames share (sum), what changed (difference and its size) and the
    energy of the pixelwise change. Few weights, blind to where in the window an event lies,
    so that a handful of events suffices. Each statistic is standardised by its mean and
    spread over all training crops, for which no labels are needed.
    """

    condenses = True

    def __init__(self, channels: int, side: int, classes: int, options: HeadOptions) -> None:
        super().__init__()
        sigmas = (side / part for part in _WINDOWS[options.pooling])
        self.windows = nn.Buffer(torch.stack([_window(side, sigma) for sigma in sigmas]))
        width = channels * (3 * 6 + 1)
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.settled = False
        self.drop = Dropout(options.dropout, width)
        self.out = nn.Linear(width, classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def front(self, features: Tensor) -> Tensor:
        """(B, 19 C) statistics."""
        mean = torch.einsum("bschw,khw->bsck", features, self.windows)
        square = torch.einsum("bschw,khw->bsck", features**2, self.windows)
        spread = (square - mean**2).clamp(min=1e-6).sqrt()
        extremes = torch.stack([features.amax(dim=(-2, -1)), features.amin(dim=(-2, -1))], dim=-1)
        first, second = torch.cat([mean, spread, extremes], dim=-1).unbind(1)
        change = (features[:, 1] - features[:, 0]) ** 2
        energy = torch.einsum("bchw,hw->bc", change, self.windows[0]).clamp(min=1e-6).sqrt()[..., None]
        difference = second - first
        return torch.cat([first + second, difference, difference.abs(), energy], dim=-1).flatten(1)

    def settle(self, fronts: Tensor) -> None:
        """Mean and spread of the statistics (N, width) over training crops."""
        self._settle(fronts.mean(dim=0), fronts.var(dim=0) + 1e-6)

    def settle_as(self, other: Head) -> None:
        """As another head of the same kind and features."""
        assert isinstance(other, PooledHead)
        self._settle(other.norm.running_mean, other.norm.running_var)

    def _settle(self, mean: Tensor | None, variance: Tensor | None) -> None:
        assert mean is not None
        assert variance is not None
        self.norm.running_mean, self.norm.running_var = mean.clone(), variance.clone()
        self.settled = True
        self.norm.eval()

    def train(self, mode: bool = True) -> PooledHead:
        """As of every module, but settled statistics stay as they are in training too."""
        super().train(mode)
        self.norm.train(mode and not self.settled)
        return self

    def standardise(self, fronts: Tensor) -> Tensor:
        """Statistics (B, width) in units of their spread, clipped at ten of them."""
        scaled: Tensor = self.norm(fronts).clamp(-10, 10)
        return scaled

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K) from `front`."""
        logits: Tensor = self.out(self.drop(self.standardise(x)))
        return logits


_WINDOWS = {Pooling.CENTRE: (8, 3), Pooling.WHOLE: (4, 1)}  # their sigmas are such parts of a crop's side


def _window(side: int, sigma: float) -> Tensor:
    """(side, side) Gaussian around the centre, summing to 1."""
    line = torch.exp(-((torch.arange(side) - (side - 1) / 2) ** 2) / (2 * sigma**2))
    window = torch.outer(line, line)
    return window / window.sum()


HEADS: dict[HeadKind, type[Head]] = {
    HeadKind.LINEAR: LinearHead,
    HeadKind.RESNET: ResNetHead,
    HeadKind.MLP: MlpHead,
    HeadKind.POOLED: PooledHead,
}


def build_head(
    kind: HeadKind,
    channels: int,
    side: int,
    classes: int,
    generator: torch.Generator,
    options: HeadOptions = DEFAULTS,
) -> Head:
    """A head with weights drawn from `generator` alone.

    Args:
        channels, side: of the dense features (C, side, side).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        make: Callable[..., Head] = HEADS[kind]
        return make(channels, side, classes, options)
