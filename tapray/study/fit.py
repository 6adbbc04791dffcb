"""Training an event head: on cached features, or together with its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tapray.model.augment import augment
from tapray.model.heads import Head, PooledHead
from tapray.model.tap import TapNet


@dataclass(frozen=True)
class Settings:
    """What a search trial chooses; a solved head has a weight decay alone."""

    weight_decay: float
    learning_rate: float = 0.0
    dropout: float = 0.0


class Arm(nn.Module):
    """Encoder and head, both trained, from normalised crop pairs (B, 2, H, W) to logits (B, K)."""

    def __init__(self, encoder: TapNet, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, 2, H, W) -> (B, K)."""
        logits: Tensor = self.head(self.head.front(self.encoder.features(pairs)))
        return logits


def fit(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    settings: Settings,
    steps: int,
    batch: int,
    generator: torch.Generator,
    *,
    augmented: bool = False,
) -> None:
    """Trains in place: Adam, cosine decay, cross-entropy, class-balanced batches.

    Args:
        inputs: (N, ...) float16 or float32, the module's inputs; labels: (N,) int64.
        augmented: inputs are crop pairs, to be flipped, turned and varied in intensity.
        generator: all that is drawn, dropout included; the global generator stays as it was.

    Source: arXiv 2411.03924, section 2.3 (Adam, class-balanced sampling, cross-entropy).
    """
    module.train()
    optimizer = torch.optim.Adam(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    members = [torch.nonzero(labels == c).squeeze(1) for c in torch.unique(labels)]
    with torch.random.fork_rng(devices=[]):  # dropout knows no generator but the global one
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        for _ in range(steps):
            rows = balanced(members, batch, generator)
            x = inputs[rows].float()
            x = augment(x, "light", generator) if augmented else x
            loss = F.cross_entropy(module(x), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
    module.eval()


def solve(head: PooledHead, inputs: Tensor, labels: Tensor, weight_decay: float) -> None:
    """Trains a settled pooled head in place, to the one optimum of its convex objective.

    Cross-entropy, each class present weighing the same, plus weight_decay / 2 times the squared weights,
    by L-BFGS over all crops at once. From few labels this spreads far less over label draws than steps of
    Adam on mini-batches do, which follow noise in single statistics as fast as what they agree on.

    Args:
        inputs: (N, width) the head's statistics; labels: (N,) int64.
    """
    x = head.standardise(inputs.float()).double()
    present, counts = torch.unique(labels, return_counts=True)
    share = torch.zeros(head.out.out_features, dtype=torch.float64)
    share[present] = 1 / (len(present) * counts.double())
    weight = torch.zeros(head.out.weight.shape, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(head.out.bias.shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels, share, reduction="sum")
        # an absent class has no optimum of its own: the touch on the bias keeps it finite
        loss = loss + weight_decay / 2 * (weight**2).sum() + 1e-6 / 2 * (bias**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.out.weight.copy_(weight)
        head.out.bias.copy_(bias)
    head.eval()


def balanced(members: Sequence[Tensor], batch: int, generator: torch.Generator) -> Tensor:
    """Rows of a batch with equally many of every class, at least one, drawn with replacement.

    Args:
        members: the rows of each class.
    """
    each = max(1, batch // len(members))
    return torch.cat([own[torch.randint(len(own), (each,), generator=generator)] for own in members])


@torch.no_grad()
def in_batches(
    function: Callable[[Tensor], Tensor], inputs: NDArray[np.generic] | Tensor, size: int = 256
) -> Tensor:
    """`function` over float32 batches of `inputs`, concatenated; no gradient."""
    parts = [
        function(torch.as_tensor(np.asarray(inputs[i : i + size])).float())
        for i in range(0, len(inputs), size)
    ]
    return torch.cat(parts)
