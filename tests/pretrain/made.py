"""Small things to train on."""

from __future__ import annotations

import numpy as np

from tapray.config import PretrainConfig
from tapray.crops.draw import CropStream
from tapray.crops.samplers import grid_shape
from tests.crops.sources import source_of

SIZE = 16


def config(**changes: object) -> PretrainConfig:
    small = {"preset": "unet-8s2", "size": SIZE, "batch": 8, "steps_per_epoch": 3, "epochs": 2}
    return PretrainConfig.model_validate({**small, "val_batches": 2, **changes})


def stream(frames: np.ndarray, seed: int = 0, length: int = 2) -> CropStream:
    weights = np.ones((len(frames) - length + 1, *grid_shape(*frames.shape[1:], SIZE)))
    ranges = np.tile(np.float32([0, 1000]), (len(frames), 1))
    return CropStream([source_of(frames, ranges, weights)], SIZE, length, "linear", seed)


def noise(frames: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, (frames, 40, 40)).astype(np.uint16)
