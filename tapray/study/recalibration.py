"""Ways to turn logits into probabilities, each fitted on validation crops: what tapray does, and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression

from tapray.study.calibration import Calibration, FloatArray, fit_calibration, fit_scaling
from tapray.study.metrics import event_probability

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
Probabilities = Callable[[Logits], FloatArray]  # (N, K) -> (N, K), rows summing to 1


def _none(logits: Logits, labels: Labels) -> Probabilities:
    return Calibration.identity(logits.shape[1]).apply


def _temperature(logits: Logits, labels: Labels) -> Probabilities:
    return _scaled(*fit_scaling(logits, labels, biased=False))


def _temperature_bias(logits: Logits, labels: Labels) -> Probabilities:
    return fit_calibration(logits, labels).apply


def _vector(logits: Logits, labels: Labels) -> Probabilities:
    return _scaled(*fit_scaling(logits, labels, per_class=True))


def _scaled(scales: FloatArray, bias: FloatArray) -> Probabilities:
    return lambda logits: np.asarray(softmax(np.asarray(logits, np.float64) * scales + bias, axis=1))


def _isotonic(logits: Logits, labels: Labels) -> Probabilities:
    """Isotonic regression of event or none on p(event) (Zadrozny and Elkan 2002); kinds share it."""
    uncalibrated = Calibration.identity(logits.shape[1]).apply
    event = event_probability(uncalibrated(logits))
    step = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    if len(event):
        step.fit(event, np.asarray(labels) > 0)

    def apply(given: Logits) -> FloatArray:
        before = uncalibrated(given)
        old = event_probability(before)
        new = step.predict(old) if len(event) else old
        kinds = before[:, 1:] / np.maximum(old, np.finfo(np.float64).tiny)[:, None]
        return np.column_stack([1 - new, kinds * new[:, None]])

    return apply


METHODS: dict[str, Callable[[Logits, Labels], Probabilities]] = {
    "none": _none,
    "temperature": _temperature,
    "temperature_bias": _temperature_bias,  # of every model that tapray saves
    "vector": _vector,
    "isotonic": _isotonic,
}
