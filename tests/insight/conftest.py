"""What tests of attribution look at: a movie of noise, and a net that has learned nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tapray.data.movies import Movie, open_movie
from tapray.model.tap import TapNet, initialise

Noise = Callable[[int, int, int], tuple[NDArray[Any], Movie]]


@pytest.fixture
def noise(tmp_path: Path) -> Noise:
    """Frames (T, H, W), and the movie "m" of them."""

    def made(*shape: int) -> tuple[NDArray[Any], Movie]:
        frames = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        np.save(tmp_path / "m.npy", frames)
        return frames, open_movie(tmp_path / "m.npy", "m")

    return made


@pytest.fixture
def net() -> TapNet:
    made = TapNet("unet-8s2")
    initialise(made, torch.Generator().manual_seed(0))
    return made
