"""The training step and validation of time arrow prediction, in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tapray.config import PretrainConfig
from tapray.crops.draw import CropStream
from tapray.model.augment import augment, swap
from tapray.model.losses import tap_loss

VALIDATION_EPOCH = 2**31  # an epoch number no training reaches: validation crops stay the same


def make_optimizer(
    net: nn.Module, config: PretrainConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam with the published cyclic schedule (base lr = maximum / 10) or one cycle."""
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    optimizer = kind(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if config.schedule == "cyclic":
        scheduler = torch.optim.lr_scheduler.CyclicLR(
            optimizer,
            base_lr=config.learning_rate / 10,
            max_lr=config.learning_rate,
            step_size_up=max(1, 2 * config.steps_per_epoch),
            cycle_momentum=False,
        )
    else:
        total = config.epochs * config.steps_per_epoch
        rise = 0.2 if total > 5 else 0.3  # PyTorch divides by rise * total - 1
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=config.learning_rate, total_steps=total, pct_start=rise
        )
    return optimizer, scheduler


@dataclass
class Batches:
    """One worker's share of the global batches of a crop stream, augmented and swapped."""

    stream: CropStream
    config: PretrainConfig
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def train(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """(b, 2, size, size) float32 and (b,) bool, whether the frames were swapped."""
        pairs = self._share(epoch, step)
        generator = self._generator(epoch, step)
        return swap(augment(pairs, self.config.augment, generator), generator)

    def validation(self, step: int) -> tuple[Tensor, Tensor]:
        """As `train`, without augmentation and the same in every epoch."""
        return swap(self._share(VALIDATION_EPOCH, step), self._generator(VALIDATION_EPOCH, step))

    def _share(self, epoch: int, step: int) -> Tensor:
        positions = self.stream.positions(epoch, step, self.config.batch)[self.rank :: self.world]
        return torch.from_numpy(self.stream.cut(positions)).to(self.device)

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        """Independent of all other steps and ranks."""
        state = np.random.SeedSequence([self.stream.seed, epoch, step, self.rank]).generate_state(
            1, np.uint64
        )
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))


def train_step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    pairs: Tensor,
    swapped: Tensor,
    decorrelation: float,
) -> tuple[float, float]:
    """One optimiser step; returns loss and arrow accuracy of this worker's share."""
    logits, features = net(pairs)
    loss, accuracy = tap_loss(logits, features, swapped, decorrelation)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    scheduler.step()
    return float(loss.detach()), float(accuracy)


@torch.no_grad()
def validate(net: nn.Module, batches: Batches) -> tuple[float, int]:
    """Arrow accuracy on the validation crops and their number, of this worker's share.

    In eval mode; the net is left in the mode it came in.
    """
    training = net.training
    net.eval()
    right = total = 0
    for step in range(batches.config.val_batches):
        pairs, swapped = batches.validation(step)
        logits, _ = net(pairs)
        right += int((logits.argmax(dim=1) == swapped.long()).sum())
        total += len(pairs)
    net.train(training)
    return right / max(total, 1), total
