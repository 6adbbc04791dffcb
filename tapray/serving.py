"""A model folder as `mlflow.pyfunc.load_model("models:/NAME@best")` loads it; nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tapray.detector import Detector, load_model
from tapray.model.dense import halo, margin_for
from tapray.study.fit import in_batches


class Served:
    """Calibrated class probabilities of crop pairs."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def predict(self, pairs: NDArray[np.float32], params: Any = None) -> NDArray[np.float64]:
        """(n, K) probabilities of normalised crop pairs (n, 2, side, side) or (n, 2, C, side, side).

        side is that of the crops, with `margin` around them where features are those of whole frames.
        """
        own, around = self._detector, margin(self._detector) // self._detector.encoder.backbone.stride

        def logits(some: torch.Tensor) -> torch.Tensor:
            dense = own.encoder.features(some, own.layer)
            inner = slice(around, dense.shape[-1] - around)
            found: torch.Tensor = own.head(own.head.front(dense[..., inner, inner]))
            return found

        return own.calibration.apply(in_batches(logits, np.asarray(pairs, np.float32)).double().numpy())


def margin(detector: Detector) -> int:
    """Pixels around a crop that a model needs: where it was made for features of whole frames, their halo."""
    if detector.crops.features == "crop":
        return 0
    return margin_for(halo(detector.encoder.preset), detector.encoder.backbone.divisor)


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls."""
    return Served(load_model(Path(path)))


def example(detector: Detector) -> NDArray[np.float32]:
    """Two crop pairs of noise, of the shape that the model takes."""
    channels, side = detector.encoder.channels, detector.crops.size + 2 * margin(detector)
    shape = (2, 2, side, side) if channels == 1 else (2, 2, channels, side, side)
    return np.random.default_rng(0).random(shape, np.float32)
