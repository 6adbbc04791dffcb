"""A baseline that has seen photographs, and no cell: torchvision's ResNet-18, its weights read from disk."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tapray.errors import UserError
from tapray.model.tap import freeze

# Of the photographs that the weights were trained on (torchvision's documentation of ResNet18_Weights).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NO_STATE = (ValueError, TypeError, RuntimeError, AttributeError)  # of load_state_dict and damaged archives
ZOOM = 2  # crops of cells are smaller than what is to be seen in photographs


class ImageNet(nn.Module):
    """The net up to its second stage: 128 maps at a quarter of a frame's resolution."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        net = _resnet(weights)
        self.trunk = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2)
        self.mean = nn.Buffer(torch.tensor(_MEAN).view(3, 1, 1))
        self.std = nn.Buffer(torch.tensor(_STD).view(3, 1, 1))
        freeze(self)

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, S, H, W) or (B, S, C, H, W) -> (B, S, 128, H / 4, W / 4); the mean of channels is seen."""
        frames = (pairs if pairs.dim() == 4 else pairs.mean(dim=2)).flatten(0, 1)[:, None]
        frames = F.interpolate(frames, scale_factor=ZOOM, mode="bilinear", align_corners=False)
        x: Tensor = self.trunk((frames.expand(-1, 3, -1, -1) - self.mean) / self.std)
        return x.view(*pairs.shape[:2], *x.shape[1:])


def _resnet(path: Path) -> Any:
    """The net with the weights of a file (.safetensors, or tensors saved by torch), never downloaded."""
    try:
        from torchvision.models import resnet18
    except ImportError:
        what = "arm 'imagenet' needs torchvision, which is not installed"
        raise UserError(what, where="study.inits", todo="install the package torchvision") from None
    net = resnet18(weights=None)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        net.load_state_dict(state)
    except (OSError, pickle.UnpicklingError, EOFError, SafetensorError, *_NO_STATE) as error:
        reason = " ".join(str(error).split()[:12])
        raise UserError(f"not the weights of a ResNet-18 ({reason})", where=path) from None
    return net
