"""Where a time arrow net reads the order of frames: at its dense features, and for checking at the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tapray.model.tap import TapNet

Way = Literal["evidence", "grad_cam"]
STEPS = 24  # of integrated gradients
PATCH = 8  # pixels of the side of what occlusion hides at a time


class _Head(nn.Module):
    """From dense features to arrow logits, with a layer that captum can look at."""

    def __init__(self, net: TapNet) -> None:
        super().__init__()
        self.net, self.frames = net, nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        seen: Tensor = self.frames(features.flatten(0, 1))
        return self.net.arrow_logits(seen.view(features.shape))


def evidence(net: TapNet, features: Tensor) -> Tensor:
    """How much every place says for the right order rather than another: their mean is the difference of the
    logits, exactly.

    The head looks at each place by itself, takes the mean of all and is linear from there on, so the mean can
    be taken last. That is the class activation map of Zhou et al. 2016, "Learning deep features for
    discriminative localization". Features of a whole frame may come from tiles: no seam can arise here.

    Args:
        net: left in eval mode; features: (B, S, 32, h, w), in order of time.

    Returns:
        (B, h, w), the first frame's logit less the mean of the others'.
    """
    net.eval()
    with torch.no_grad():
        logits: Tensor = net.logit(net.arrow(features))[:, :, 0]
    return _lead(logits)


def _lead(logits: Tensor) -> Tensor:
    """Of logits (B, S, ...): how far the right order is ahead of the mean of the others."""
    return logits[:, 0] - logits[:, 1:].mean(dim=1)


def grad_cam(net: TapNet, features: Tensor) -> Tensor:
    """Grad-CAM of the time arrow head at the dense features, as published (arXiv 2411.03924, section 4).

    Args:
        net: left in eval mode; features: (B, S, 32, h, w), in order of time.

    Returns:
        (B, S, h, w), 0 where nothing speaks for the right order.
    """
    head = _Head(net.eval())
    cam = LayerGradCam(head, head.frames)
    found: Tensor = cam.attribute(features.detach(), target=0, relu_attributions=True)
    return found.detach().view(*features.shape[:2], *features.shape[-2:])


def attribution(net: TapNet, crops: NDArray[np.float32]) -> dict[Way, NDArray[np.float32]]:
    """Size of the `evidence` in crops, and `grad_cam` of their first frame, at the size of their frames.

    Args:
        net: left in eval mode.
        crops: (B, S, H, W) or (B, S, C, H, W), normalised, in order of time.

    Returns:
        each (B, H, W), 0 or more, at most 1 in each crop.
    """
    with torch.no_grad():
        features = net.eval().features(torch.from_numpy(crops))
    found: dict[Way, Tensor] = {
        "evidence": evidence(net, features).abs(),
        "grad_cam": grad_cam(net, features)[:, 0],
    }
    return {way: _shown(maps, crops.shape[-2:], net.backbone.stride) for way, maps in found.items()}


def _shown(maps: Tensor, shape: Sequence[int], stride: int) -> NDArray[np.float32]:
    """Maps (B, h, w), which may go beyond their frames, at the size of these (H, W), each divided by its
    largest value.
    """
    whole = [stride * side for side in maps.shape[-2:]]
    large = F.interpolate(maps[:, None], whole, mode="bilinear")[:, 0, : shape[0], : shape[1]]
    top = large.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(large.dtype).tiny)
    values: NDArray[np.float32] = (large / top).numpy()
    return values


def integrated_gradients(net: TapNet, crops: Tensor) -> Tensor:
    """(B, S, H, W) share of every pixel in the difference that `evidence` adds up to, against black frames;
    of several channels their sum.

    Source: Sundararajan et al. 2017, "Axiomatic attribution for deep networks".

    Args:
        net: left in eval mode; crops: (B, S, H, W) or (B, S, C, H, W) float32, in order of time.
    """
    net.eval()
    found = IntegratedGradients(lambda x: _lead(net(x)[0])).attribute(crops, n_steps=STEPS)
    return _summed(found.detach().float())


def occlusion(net: TapNet, crops: Tensor) -> Tensor:
    """(B, S, H, W) how much the same difference falls where a patch of a frame is hidden.

    Source: Zeiler and Fergus 2014. Arguments as of `integrated_gradients`.
    """
    net.eval()
    window = (1, *crops.shape[2:-2], PATCH, PATCH)
    with torch.no_grad():
        found = Occlusion(lambda x: _lead(net(x)[0])).attribute(crops, window, strides=window)
    return _summed(found)


def _summed(found: Tensor) -> Tensor:
    return found.sum(dim=2) if found.dim() == 5 else found
