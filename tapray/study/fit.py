"""Training an event head: on cached features, or together with its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from tapray.config import ClassWeights
from tapray.model.augment import augment
from tapray.model.heads import Dropout, Head, PooledHead
from tapray.model.tap import TapNet
from tapray.study.space import Settings


class Crops(Protocol):
    """What rows are taken of: a tensor or an array, or what cuts them when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Arm(nn.Module):
    """Encoder and head, both trained, from normalised crop pairs (B, 2, H, W) to logits (B, K)."""

    def __init__(self, encoder: TapNet, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, 2, H, W) -> (B, K)."""
        logits: Tensor = self.head(self.head.front(self.encoder.features(pairs)))
        return logits


class Training:
    """Modules of one shape that are trained together, each on its own crops, with its own settings.

    Adam, cosine decay, cross-entropy, class-balanced batches (arXiv 2411.03924, section 2.3). None takes
    notice of the others. It goes on from where it stands each time that `advance` is called.

    Args:
        modules: trained in place; more than one where a step of all is a batched matrix product
            (`Head.stacks`).
        inputs: (N, ...) float16 or float32, the modules' inputs; labels: (N,) int64.
        rows: of each module, the crops that it is trained on.
        steps: of the whole schedule.
        generators: of each module, all that is drawn, dropout included; the global one stays as it was.
        augmented: inputs are crop pairs, to be flipped, turned and varied in intensity; of one module alone.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        inputs: Crops,
        labels: Tensor,
        rows: Sequence[Tensor],
        settings: Sequence[Settings],
        steps: int,
        batch: int,
        generators: Sequence[torch.Generator],
        *,
        augmented: bool = False,
    ) -> None:
        self.modules, self.steps, self.done = modules, steps, 0
        self._inputs, self._labels = inputs, labels
        self._augment = settings[0].augment if augmented else None
        weights = settings[0].class_weights
        drawn = [
            own[draw_batches(labels[own], steps, batch, weights, generator)]
            for own, generator in zip(rows, generators, strict=True)
        ]
        self._shared = all(torch.equal(drawn[0], other) for other in drawn)
        self._drawn = torch.stack(drawn[:1] if self._shared else drawn, dim=1)  # (steps, 1 or modules, batch)
        self._generator = generators[0]  # augments
        self._drops = [
            (drop, generator)
            for module, generator in zip(modules, generators, strict=True)
            for drop in module.modules()
            if isinstance(drop, Dropout)
        ]
        groups = [
            {"params": module.parameters(), "lr": own.learning_rate, "weight_decay": own.weight_decay}
            for module, own in zip(modules, settings, strict=True)
        ]
        self._optimizer = torch.optim.Adam(groups)
        self._scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, steps)

    def advance(self, steps: int) -> None:
        """So many steps more."""
        for module in self.modules:
            module.train()
        for rows in self._drawn[self.done : self.done + steps]:
            self._step(rows)
        self.done += steps
        for drop, _ in self._drops:
            drop.mask = None  # it fits batches of this training alone
        for module in self.modules:
            module.eval()

    def _step(self, rows: Tensor) -> None:
        x, y = self._inputs[rows].float(), self._labels[rows].expand(len(self.modules), -1)
        if self._augment:
            x = augment(x.squeeze(0), self._augment, self._generator).unsqueeze(0)
        for drop, generator in self._drops:
            drop.draw(rows.shape[-1], generator)
        logits = side_by_side(self.modules, x[0] if self._shared else x, shared=self._shared)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._scheduler.step()


def side_by_side(modules: Sequence[nn.Module], x: Tensor, *, shared: bool) -> Tensor:
    """Logits (S, B, K) of S modules of one shape, which draw nothing themselves.

    Args:
        x: (S, B, ...), or (B, ...) where it is `shared` by all.
    """
    if len(modules) == 1:
        logits: Tensor = modules[0](x if shared else x[0])
        return logits.unsqueeze(0)
    names = [name for name, _ in modules[0].named_parameters()]
    names += [name for name, _ in modules[0].named_buffers()]
    stacked = {name: torch.stack([_tensor(module, name) for module in modules]) for name in names}

    def one(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(modules[0], tensors, (x,))
        return logits

    # it refuses modules that draw: from one generator for all, none would be as it is alone
    several: Tensor = vmap(one, in_dims=(0, None if shared else 0), randomness="error")(stacked, x)
    return several


def _tensor(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that dotted name."""
    where, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(where), last)
    return found


def solve(head: PooledHead, inputs: Tensor, labels: Tensor, settings: Settings) -> None:
    """Trains a settled pooled head in place, to the one optimum of its convex objective.

    Mean cross-entropy, weighted by class as the settings say, plus weight_decay / 2 times the squared
    weights, by L-BFGS over all crops at once. From few labels this spreads far less over label draws than
    steps of Adam on mini-batches do, which follow noise in single statistics as fast as what they agree on.

    Args:
        inputs: (N, width) the head's statistics; labels: (N,) int64.
    """
    x = head.standardise(inputs.float()).double()
    present, counts = torch.unique(labels, return_counts=True)
    share = torch.zeros(head.out.out_features, dtype=torch.float64)
    even = settings.class_weights is ClassWeights.BALANCED
    share[present] = 1 / (len(present) * counts.double()) if even else 1 / len(labels)
    weight = torch.zeros(head.out.weight.shape, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(head.out.bias.shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels, share, reduction="sum")
        # an absent class has no optimum of its own: the touch on the bias keeps it finite
        loss = loss + settings.weight_decay / 2 * (weight**2).sum() + 1e-6 / 2 * (bias**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.out.weight.copy_(weight)
        head.out.bias.copy_(bias)
    head.eval()


def draw_batches(
    labels: Tensor, steps: int, batch: int, weights: ClassWeights, generator: torch.Generator
) -> Tensor:
    """(steps, batch) places in labels (n,), drawn with replacement.

    Balanced: as many of every class in each step, the first of them one more where they do not divide a
    batch.
    """
    if weights is ClassWeights.NATURAL:
        return torch.randint(len(labels), (steps, batch), generator=generator)
    classes = torch.unique(labels)
    parts = []
    for number, label in enumerate(classes):
        own = torch.nonzero(labels == label).squeeze(1)
        each = (batch - number + len(classes) - 1) // len(classes)
        parts.append(own[torch.randint(len(own), (steps, each), generator=generator)])
    return torch.cat(parts, dim=1)


@torch.no_grad()
def logits_of(
    modules: Sequence[nn.Module], inputs: Crops, rows: NDArray[np.int64], size: int = 256
) -> NDArray[np.float64]:
    """Logits (S, n, K) of S modules of one shape on the crops `rows` (n,), so many at a time."""
    parts = [
        side_by_side(modules, inputs[torch.from_numpy(own)].float(), shared=True)
        for own in np.split(rows, range(size, len(rows), size))
    ]
    found: NDArray[np.float64] = torch.cat(parts, dim=1).double().numpy()
    return found


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], inputs: Crops, size: int = 256) -> Tensor:
    """`function` over float32 batches of `inputs`, concatenated; no gradient."""
    parts = [function(torch.as_tensor(inputs[i : i + size]).float()) for i in range(0, len(inputs), size)]
    return torch.cat(parts)
