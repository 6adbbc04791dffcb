"""What a worker trains on: its share of each step's crops, augmented and rolled on its device."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapray.config import PretrainConfig
from tapray.crops.draw import CropStream
from tapray.crops.normalise import scale
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
        positions = self.stream.positions(epoch, step, self.config.batch, self.rank, self.world)
        raw, ranges = (self._sent(array) for array in self.stream.cut(positions))
        return normalised(raw, ranges, self.stream.intensity)

    def augmented(self, crops: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """What `train` returns for these crops."""
        generator = self._generator(epoch, step)
        return roll(augment(crops, self.config.augment, generator), generator)

    def _sent(self, array: NDArray[np.generic]) -> Tensor:
        """On the device; a GPU goes on computing meanwhile."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        """Independent of all other steps and ranks."""
        state = np.random.SeedSequence([self.stream.seed, epoch, step, self.rank]).generate_state(
            1, np.uint64
        )
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))


class Ahead:
    """Cuts the crops of the next step, in a thread, while a GPU computes; a CPU has no time to spare."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self._pool = ThreadPoolExecutor(1) if batches.device.type == "cuda" else None
        self._cut: dict[tuple[int, int], Future[Tensor]] = {}

    def crops(self, epoch: int, step: int, after: tuple[int, int]) -> Tensor:
        """As of the batches; `after` is the epoch and step that will be asked for next."""
        if self._pool is None:
            return self.batches.crops(epoch, step)
        cut = self._cut.get((epoch, step)) or self._pool.submit(self.batches.crops, epoch, step)
        self._cut = {after: self._pool.submit(self.batches.crops, *after)}
        return cut.result()


def normalised(raw: Tensor, ranges: Tensor, intensity: str) -> Tensor:
    """What crops.normalise.normalise makes of arrays, to the last bit, on the device of the tensors.

    Args:
        raw: (..., H, W), any real dtype, may be overwritten; ranges: (..., 2) float32.

    Returns:
        (..., H, W) float32.
    """
    out = raw.to(torch.float32)
    if intensity == "sqrt":
        out = out.double().clamp_(min=0).sqrt_().float()  # a float32's own root is not always the nearest
    return scale(out, ranges)
