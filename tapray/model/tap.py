"""The time arrow net: backbone, projection to dense features, permutation-equivariant head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tapray.config import Layer
from tapray.model.backbones import build_backbone

FEATURES = 32  # channels of the dense features


class EquivariantBlock(nn.Module):
    """y_s = L x_s + mean_r(G x_r) over the frame axis, then optional batch norm and leaky ReLU.

    Works on (B, S, C, ...) and commutes with any permutation of S.
    Source: Zaheer et al. 2017 (Deep Sets), as used in arXiv 2305.05511.
    """

    def __init__(self, c_in: int, c_out: int, *, norm: bool = True) -> None:
        super().__init__()
        self.local = nn.Linear(c_in, c_out)
        self.shared = nn.Linear(c_in, c_out)
        self.norm = nn.BatchNorm1d(c_out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, C, ...) -> (B, S, c_out, ...)."""
        x = x.movedim(2, -1)  # channels last
        x = self.local(x) + self.shared(x.mean(dim=1, keepdim=True))
        if self.norm is not None:
            shape = x.shape
            x = nn.functional.leaky_relu(self.norm(x.reshape(-1, shape[-1])).reshape(shape))
        return x.movedim(-1, 2)


class TapNet(nn.Module):
    """Predicts for each frame of a crop pair a logit for being the first in time.

    Swapping the input frames swaps the logits exactly.
    Source: arXiv 2305.05511, section 2; arXiv 2411.03924, section 2.1.
    """

    def __init__(self, preset: str, channels: int = 1) -> None:
        super().__init__()
        self.preset, self.channels = preset, channels
        self.backbone = build_backbone(preset, channels)
        self.projection = nn.Sequential(
            nn.Conv2d(self.backbone.out_channels, FEATURES, 1), nn.BatchNorm2d(FEATURES)
        )
        self.arrow = nn.Sequential(EquivariantBlock(FEATURES, FEATURES), EquivariantBlock(FEATURES, FEATURES))
        self.logit = EquivariantBlock(FEATURES, 1, norm=False)

    def features(self, pairs: Tensor, layer: Layer = Layer.PROJECTION) -> Tensor:
        """Dense features, frame by frame.

        Args:
            pairs: (B, S, H, W) or, of several channels, (B, S, C, H, W) float32, normalised
                intensities of S frames.
            layer: the projection's output, or the backbone's that goes into it.

        Returns:
            (B, S, 32, h, w) float32; h, w are H, W divided by the stem's stride. The backbone's own number
            of channels where that is the layer.
        """
        frames = pairs.flatten(0, 1)
        x: Tensor = self.backbone(frames if frames.dim() == 4 else frames.unsqueeze(1))
        x = x.view(*pairs.shape[:2], *x.shape[1:])
        return self.project(x) if layer is Layer.PROJECTION else x

    def project(self, features: Tensor) -> Tensor:
        """(B, S, C, h, w) features of the backbone -> (B, S, 32, h, w) those of the projection."""
        x: Tensor = self.projection(features.flatten(0, 1))
        return x.view(*features.shape[:2], *x.shape[1:])

    def arrow_logits(self, features: Tensor) -> Tensor:
        """(B, S, 32, h, w) dense features -> (B, S) logits."""
        x: Tensor = self.logit(self.arrow(features).mean(dim=(-2, -1), keepdim=True))
        return x.flatten(1)

    def forward(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, H, W) or (B, S, C, H, W) -> arrow logits (B, S) and dense features (B, S, 32, h, w)."""
        features = self.features(pairs)
        return self.arrow_logits(features), features


def freeze(net: nn.Module) -> nn.Module:
    """Frozen: eval mode (batch-norm statistics untouched) and no gradients."""
    return net.eval().requires_grad_(False)


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draws Kaiming convolutions and linear maps from `generator`; batch norm at 1 and 0.

    With it a net is a pure function of the seed, whatever the global generator did.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            conv = isinstance(module, nn.Conv2d)
            nn.init.kaiming_normal_(
                module.weight, nonlinearity="leaky_relu" if conv else "linear", generator=generator
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def initialise_paper(net: nn.Module, generator: torch.Generator) -> None:
    """The published random baseline: as `initialise`, with batch-norm scales from N(0, 1)."""
    initialise(net, generator)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, generator=generator)
