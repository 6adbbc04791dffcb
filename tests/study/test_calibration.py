"""Calibration recovers what was done to the logits, and does not run away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from tapray.study.calibration import (
    BIAS_STD,
    HIGHEST,
    LOG_TEMPERATURE_STD,
    LOWEST,
    Calibration,
    fit_calibration,
)
from tapray.study.metrics import probability_scores


def drawn(rng: np.random.Generator, true: NDArray[np.float64]) -> NDArray[np.int64]:
    """Labels drawn from softmax(true)."""
    p = softmax(true, axis=1)
    return np.asarray((p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1))


def test_identity_and_formula() -> None:
    logits = np.array([[0.5, -1.0, 2.0], [3.0, 0.0, -3.0]])
    np.testing.assert_allclose(Calibration.identity(3).apply(logits), softmax(logits, axis=1))
    fitted = Calibration(2.0, (0.0, 0.3, -0.7))
    np.testing.assert_allclose(fitted.apply(logits), softmax(logits / 2 + [0, 0.3, -0.7], axis=1))
    assert fitted.apply(logits.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize("k", [2, 3])
def test_fit_recovers_temperature_and_bias(k: int) -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=(40_000, k)) * 2
    true[:, 0] += 2
    bias = np.array([0.0, -1.5, 0.8][:k])
    fitted = fit_calibration((true - bias) * 3.0, drawn(rng, true))
    assert fitted.temperature == pytest.approx(3.0, rel=0.05)
    assert fitted.bias == pytest.approx(bias, abs=0.08)
    assert fitted.bias[0] == 0.0


def test_fit_agrees_with_torch_lbfgs_on_the_same_objective() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(3, size=300)
    logits = rng.normal(size=(300, 3)) * 4 + 3 * np.eye(3)[labels]
    z, y = torch.from_numpy(logits), torch.from_numpy(labels)
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([x], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        shifted = z * torch.exp(-x[0]) + torch.cat([torch.zeros(1, dtype=x.dtype), x[1:]])
        prior = (x[0] / LOG_TEMPERATURE_STD) ** 2 + ((x[1:] / BIAS_STD) ** 2).sum()
        loss = torch.nn.functional.cross_entropy(shifted, y) + prior / (2 * len(y))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted = fit_calibration(logits, labels)
    assert np.log(fitted.temperature) == pytest.approx(x[0].item(), abs=1e-3)
    assert fitted.bias[1:] == pytest.approx(x[1:].tolist(), abs=1e-3)


def test_a_shifted_prior_needs_the_bias() -> None:
    """A head trained on balanced classes, judged at 3 % events: temperature alone leaves the ECE high."""
    rng = np.random.default_rng(3)
    signal = rng.normal(size=20_000) * 2
    true = np.stack([np.zeros(20_000), signal - 4.5], axis=1)
    balanced = true + np.array([0.0, 3.5])
    labels = drawn(rng, true)
    fit, test = slice(0, 10_000), slice(10_000, None)
    assert 0.02 < labels.mean() < 0.06
    fitted = fit_calibration(balanced[fit], labels[fit])
    before, after = (
        probability_scores(p, labels[test], labels[fit].mean())["ece"]
        for p in (softmax(balanced[test], axis=1), fitted.apply(balanced[test]))
    )
    hottest = min(
        probability_scores(softmax(balanced[test] / t, axis=1), labels[test], 0.0)["ece"]
        for t in np.geomspace(LOWEST, HIGHEST, 40)
    )
    assert before > 0.2
    assert hottest > 0.05
    assert after < 0.01
    assert fitted.bias[1] == pytest.approx(-3.5, abs=0.35)


@pytest.mark.parametrize("events", [1, 3, 10])
def test_a_separable_validation_set_does_not_run_away(events: int) -> None:
    logits = np.zeros((200, 2))
    logits[:, 1] = np.where(np.arange(200) < events, 2.0, -2.0)
    fitted = fit_calibration(logits, (np.arange(200) < events).astype(int))
    assert 0.15 < fitted.temperature < 1.0  # sharper, far from the bound
    assert abs(fitted.bias[1]) < 5
    assert fitted.apply(logits)[0, 1] > 0.8


@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
    n=st.integers(2, 60),
    k=st.integers(2, 3),
)
@settings(max_examples=40)
def test_every_fit_is_finite_bounded_and_no_worse_than_identity(
    seed: int, scale: float, n: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = scale * rng.normal(size=(n, k)), rng.integers(k, size=n)
    fitted = fit_calibration(logits, labels)
    assert LOWEST <= fitted.temperature <= HIGHEST * (1 + 1e-9)
    assert np.isfinite(fitted.bias).all()
    np.testing.assert_allclose(fitted.apply(logits).sum(axis=1), 1.0)
    shifted = logits / fitted.temperature + np.asarray(fitted.bias)
    before, after = (-log_softmax(z, axis=1)[np.arange(n), labels].sum() for z in (logits, shifted))
    assert after <= before * (1 + 1e-9) + 1e-9


def test_a_missing_class_leaves_the_identity() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3))
    assert fit_calibration(logits, np.tile([0, 1], 25)) == Calibration.identity(3)
    assert fit_calibration(logits[:0], np.zeros(0, int)) == Calibration.identity(3)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit_calibration(np.array([[0.0, np.nan], [0.0, 1.0]]), np.array([0, 1]))
