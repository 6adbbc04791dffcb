"""A model folder as `mlflow.pyfunc.load_model("models:/NAME@best")` loads it; nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tapray.detector import Detector, load_model
from tapray.study.fit import in_batches


class Served:
    """Calibrated class probabilities of crop pairs."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def predict(self, pairs: NDArray[np.float32], params: Any = None) -> NDArray[np.float64]:
        """(n, K) probabilities of normalised crop pairs (n, 2, size, size) or (n, 2, C, size, size)."""
        own = self._detector

        def logits(some: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = own.head(own.head.front(own.encoder.features(some, own.layer)))
            return found

        return own.calibration.apply(in_batches(logits, np.asarray(pairs, np.float32)).double().numpy())


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls."""
    return Served(load_model(Path(path)))


def example(detector: Detector) -> NDArray[np.float32]:
    """Two crop pairs of noise, of the shape that the model takes."""
    channels, size = detector.encoder.channels, detector.crops.size
    shape = (2, 2, size, size) if channels == 1 else (2, 2, channels, size, size)
    return np.random.default_rng(0).random(shape, np.float32)
