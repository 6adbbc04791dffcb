"""The TAP loss: which frame came first, plus decorrelation of the dense features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def decorrelation(features: Tensor, temperature: float = 0.2) -> Tensor:
    """How alike the feature channels of an image are; lower is more different.

    Per image the channels are flattened to F (C x HW), rows of (F F^T) / temperature go
    through a softmax, and -log of the diagonal is averaged.

    Args:
        features: (N, C, h, w).

    Source: arXiv 2305.05511, section 2, decorrelation loss.
    """
    with torch.autocast(features.device.type, enabled=False):  # in fp16 sums over many pixels overflow
        flat = features.flatten(2).float()
        similarity = flat @ flat.transpose(1, 2) / temperature
        return -F.log_softmax(similarity, dim=-1).diagonal(dim1=1, dim2=2).mean()


def tap_loss(logits: Tensor, features: Tensor, first: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy on the arrow + `weight` x decorrelation.

    Args:
        logits: (B, S) for each frame to be the first in time.
        features: (B, S, C, h, w).
        first: (B,) int64, which frame is.

    Returns:
        The loss, and the share of arrows predicted right (no gradient).
    """
    loss = F.cross_entropy(logits.float(), first)
    if weight > 0:
        loss = loss + weight * decorrelation(features.flatten(0, 1))
    with torch.no_grad():
        accuracy = (logits.argmax(dim=1) == first).float().mean()
    return loss, accuracy
