"""What a worker trains on: its share of each step's crops, augmented and rolled on its device."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tapray.config import PretrainConfig
from tapray.crops.draw import CropStream
from tapray.model.augment import augment, roll

VALIDATION_EPOCH = 2**31  # an epoch number no training reaches: validation crops stay the same


@dataclass
class Batches:
    """One worker's share of the global batches of a crop stream, augmented and rolled."""

    stream: CropStream
    config: PretrainConfig
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def train(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Crops (b, S, size, size) float32 and (b,) int64, which of their frames is first in time."""
        return self.augmented(self.crops(epoch, step), epoch, step)

    def validation(self, step: int) -> tuple[Tensor, Tensor]:
        """As `train`, without augmentation and the same in every epoch."""
        return roll(self.crops(VALIDATION_EPOCH, step), self._generator(VALIDATION_EPOCH, step))

    def crops(self, epoch: int, step: int) -> Tensor:
        """This worker's crops of a step, in order of time, on its device."""
        positions = self.stream.positions(epoch, step, self.config.batch)[self.rank :: self.world]
        return torch.from_numpy(self.stream.cut(positions)).to(self.device)

    def augmented(self, crops: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """What `train` returns for these crops."""
        generator = self._generator(epoch, step)
        return roll(augment(crops, self.config.augment, generator), generator)

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        """Independent of all other steps and ranks."""
        state = np.random.SeedSequence([self.stream.seed, epoch, step, self.rank]).generate_state(
            1, np.uint64
        )
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))
