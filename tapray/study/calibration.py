"""Temperature and bias calibration of the event head, fitted on validation crops only.

Temperature scaling: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2. A
class-balanced sampler trains for another prior than the test set's; dividing the logits by one number cannot
shift a prior, so a bias per event class is fitted beside the temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

FloatArray = NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 20.0  # bounds of the temperature
# Standard deviations of normal priors around the identity, in nats. A bias of log(0.03 / 0.97) = -3.5, which
# mends balanced training at 3 % events, costs 0.24 nats in total over all validation crops; without the
# priors a separable validation set of few events would drive the temperature to 0.
LOG_TEMPERATURE_STD = 1.0
BIAS_STD = 5.0


@dataclass(frozen=True)
class Calibration:
    """p = softmax(logits / temperature + bias); bias has one entry per class, 0 for class 0."""

    temperature: float
    bias: tuple[float, ...]

    @classmethod
    def identity(cls, n_classes: int) -> Self:
        """Leaves softmax(logits) as it is."""
        return cls(1.0, (0.0,) * n_classes)

    def apply(self, logits: NDArray[np.floating[Any]]) -> FloatArray:
        """(N, K) logits -> (N, K) float64 probabilities whose rows sum to 1."""
        scaled = np.asarray(logits, dtype=np.float64) / self.temperature
        return np.asarray(softmax(scaled + np.asarray(self.bias), axis=1))


def fit_calibration(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], temperature: float | None = None
) -> Calibration:
    """Temperature and bias of lowest negative log-likelihood on validation crops, or the bias alone where the
    temperature is given.

    logits (N, K), labels (N,) in 0..K-1; see `fit_scaling`.
    """
    scales, bias = fit_scaling(logits, labels, temperature=temperature)
    return Calibration(float(1 / scales[0]), (0.0, *(float(b) for b in bias[1:])))


def fit_scaling(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    *,
    per_class: bool = False,
    biased: bool = True,
    temperature: float | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Scales (K,) and biases (K,), 0 for class 0, of lowest negative log-likelihood (L-BFGS-B over log scales
    and biases): softmax(scales * logits + bias).

    The likelihood is joined by weak normal priors (see the constants above), so that few events cannot make
    it run away. Where a class has no validation crop there is nothing to fit: no bias.

    Args:
        logits: (N, K); labels: (N,) in 0..K-1.
        per_class: a scale for every class (vector scaling: Guo et al. 2017, section 4.2), else one for all.
        biased: False leaves the biases at 0.
        temperature: keeps the scales at its inverse.

    Raises:
        ValueError: logits are not finite.
    """
    z = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(z).all():
        raise ValueError("logits to calibrate must be finite")
    n, k = z.shape
    target = np.eye(k)[np.asarray(labels)]
    if n == 0 or not target.any(axis=0).all():
        return np.full(k, 1 / (temperature or 1.0)), np.zeros(k)
    count = k if per_class else 1
    std = np.array([*[LOG_TEMPERATURE_STD] * count, *[BIAS_STD] * (k - 1)])
    first = -np.log(temperature or 1.0)
    low, high = (first, first) if temperature else (-np.log(HIGHEST), -np.log(LOWEST))
    bounds = [*[(low, high)] * count, *[(None, None) if biased else (0.0, 0.0)] * (k - 1)]
    options = {"ftol": 1e-12, "gtol": 1e-8, "maxiter": 500}
    start = np.array([*[first] * count, *[0.0] * (k - 1)])
    given = (z, target, std)
    found = minimize(_penalised_nll, start, given, "L-BFGS-B", jac=True, bounds=bounds, options=options)
    scales = np.broadcast_to(np.exp(found.x[:count]), (k,))
    return scales, np.concatenate([[0.0], found.x[count:]])


def _penalised_nll(
    x: FloatArray, z: FloatArray, target: FloatArray, std: FloatArray
) -> tuple[float, FloatArray]:
    """Negative log-likelihood with the priors, by crop, and its gradient.

    x: log scales, one or K, then K - 1 biases; z, target: (N, K); std: of the priors of x.
    """
    n, k = z.shape
    count = len(x) - (k - 1)
    scaled = z * np.exp(x[:count])
    log_p = log_softmax(scaled + np.concatenate([[0.0], x[count:]]), axis=1)
    residual = np.exp(log_p) - target  # gradient of the summed NLL by the shifted logits
    by_scale = (residual * scaled).sum(axis=0)
    slope = [by_scale if count == k else by_scale.sum(keepdims=True), residual[:, 1:].sum(axis=0)]
    value = -log_p[target > 0].sum() + 0.5 * float(((x / std) ** 2).sum())
    return value / n, (np.concatenate(slope) + x / std**2) / n
