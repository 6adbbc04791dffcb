"""Every way to calibrate gives probabilities, agrees with what it is said to be, and keeps the ranking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression

from tapray.study.calibration import fit_calibration
from tapray.study.metrics import event_probability
from tapray.study.recalibration import METHODS
from tests.study.test_calibration import drawn


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 1000), n=st.integers(0, 60), k=st.integers(2, 3))
@settings(max_examples=25)
def test_whatever_is_given_rows_are_probabilities(method: str, seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    fitted = METHODS[method](3 * rng.normal(size=(n, k)), rng.integers(k, size=n))
    found = fitted(5 * rng.normal(size=(40, k)))
    assert found.shape == (40, k)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.parametrize("method", ["temperature", "temperature_bias", "isotonic"])
def test_two_classes_keep_their_ranking(method: str) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 2)) * 3
    found = METHODS[method](logits, drawn(rng, logits / 3))(logits)
    order = np.argsort(logits[:, 1] - logits[:, 0])
    assert (np.diff(event_probability(found)[order]) >= -1e-12).all()


def test_a_temperature_alone_is_that_of_guo() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5000, 3)) * 4
    labels = drawn(rng, logits / 2.5)
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([x], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits) / x.exp(), torch.from_numpy(labels))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    expected = softmax(logits / np.exp(x.item()), axis=1)
    np.testing.assert_allclose(METHODS["temperature"](logits, labels)(logits), expected, atol=1e-3)


def test_vector_scaling_mends_what_one_temperature_cannot() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(size=(20_000, 3)) * 2
    labels, logits = drawn(rng, true), true * [1.0, 3.0, 0.5]
    errors = {
        name: np.abs(METHODS[name](logits, labels)(logits) - softmax(true, axis=1)).mean()
        for name in ("temperature_bias", "vector")
    }
    assert errors["vector"] < 0.02 < errors["temperature_bias"]


def test_isotonic_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(300, 2)), rng.integers(2, size=300)
    event = softmax(logits, axis=1)[:, 1]
    step = IsotonicRegression(out_of_bounds="clip").fit(event, labels)
    found = METHODS["isotonic"](logits, labels)(logits)
    np.testing.assert_allclose(found[:, 1], step.predict(event))


def test_what_tapray_saves_is_among_them() -> None:
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(300, 2)), rng.integers(2, size=300)
    found = METHODS["temperature_bias"](logits, labels)(logits)
    np.testing.assert_array_equal(found, fit_calibration(logits, labels).apply(logits))
