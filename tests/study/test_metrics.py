"""Scores agree with scikit-learn and torchmetrics, and have the values worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error

from tapray.study.metrics import (
    best_f1_threshold,
    calibration_bins,
    event_probability,
    predict_classes,
    probability_scores,
    score,
)


def case(
    seed: int, k: int = 2, n: int = 200, decimals: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Random probabilities (n, k) that know something of their labels; every class occurs."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.choice(k, n - k, p=[0.8, *[0.2 / (k - 1)] * (k - 1)])])
    logits = rng.normal(size=(n, k)) + rng.uniform(0, 3) * np.eye(k)[labels]
    return softmax(logits if decimals is None else logits.round(decimals), axis=1), labels


@given(seed=st.integers(0, 10_000), ties=st.booleans())
@settings(max_examples=40)
def test_binary_scores_agree_with_the_libraries(seed: int, ties: bool) -> None:
    p, y = case(seed, decimals=0 if ties else None)
    event = p[:, 1]
    found = score(p, y, 2) | probability_scores(p, y, constant=0.1)
    predicted = p.argmax(axis=1)
    wanted = {
        "ap": sk.average_precision_score(y, event),
        "f1": sk.f1_score(y, predicted, zero_division=0),
        "precision_0": sk.precision_score(y, predicted, pos_label=0, zero_division=0),
        "recall_0": sk.recall_score(y, predicted, pos_label=0),
        "precision_1": sk.precision_score(y, predicted, zero_division=0),
        "recall_1": sk.recall_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "mcc": sk.matthews_corrcoef(y, predicted),
        "nll": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, event),
        "ece": float(binary_calibration_error(torch.from_numpy(event), torch.from_numpy(y), n_bins=15)),
        "ece_constant": abs(0.1 - y.mean()),
    }
    assert found == pytest.approx(wanted, abs=1e-6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_three_class_scores_agree_with_the_libraries(seed: int) -> None:
    p, y = case(seed, k=3)
    found = score(p, y, 3) | probability_scores(p, y, constant=0.2)
    predicted = p.argmax(axis=1)
    assert found["ap"] == pytest.approx(
        sk.average_precision_score(np.eye(3)[y][:, 1:], p[:, 1:], average="macro")
    )
    assert found["f1"] == pytest.approx(
        sk.f1_score(y, predicted, labels=[1, 2], average="macro", zero_division=0)
    )
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, predicted))
    assert found["nll"] == pytest.approx(sk.log_loss(y, p))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y > 0, 1 - p[:, 0]))
    ece = binary_calibration_error(
        torch.from_numpy(1 - p[:, 0]), torch.from_numpy((y > 0).astype(int)), n_bins=15
    )
    assert found["ece"] == pytest.approx(float(ece), abs=1e-6)


def test_published_counts_give_the_published_scores() -> None:
    """TP 2198, FP 1028, FN 272, TN 15502: precision 0.681, recall 0.890, F1 0.772 (arXiv 2411.03924)."""
    y = np.repeat([1, 0, 1, 0], [2198, 1028, 272, 15502])
    p = np.eye(2)[np.repeat([1, 1, 0, 0], [2198, 1028, 272, 15502])]
    found = score(p, y, 2)
    rounded = [round(found[key], 3) for key in ("precision_1", "recall_1", "f1")]
    assert rounded == [0.681, 0.890, 0.772]


def test_a_class_that_is_absent_or_never_predicted() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0]])
    found = score(p, np.array([0, 0, 1]), 3)
    assert found["ap"] == 1.0  # division is ranked first, death does not occur
    assert (found["precision_1"], found["recall_1"], found["f1"]) == (0.0, 0.0, 0.0)
    assert np.isnan([found["precision_2"], found["recall_2"]]).all()
    assert found["balanced_accuracy"] == 0.5
    none = score(p, np.array([0, 0, 0]), 3)
    assert np.isnan([none["ap"], none["f1"]]).all()
    assert none["recall_0"] == 1.0


def test_scores_refuse_probabilities_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\) for 3 crops, 3 classes"):
        score(np.full((3, 2), 0.5), np.array([0, 1, 2]), 3)


def test_a_threshold_decides_event_or_not_before_the_kind() -> None:
    p = np.array([[0.7, 0.1, 0.2], [0.75, 0.2, 0.05], [0.9, 0.05, 0.05], [0.2, 0.5, 0.3]])
    assert predict_classes(p).tolist() == [0, 0, 0, 1]
    assert predict_classes(p, threshold=0.25).tolist() == [2, 1, 0, 1]
    y = np.array([2, 1, 0, 1])
    assert score(p, y, 3, threshold=0.25)["f1"] == 1.0
    assert score(p, y, 3)["f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_the_best_threshold_lies_between_the_classes() -> None:
    event = np.array([0.01, 0.02, 0.10, 0.30, 0.40])
    p = np.stack([1 - event, event], axis=1)
    assert best_f1_threshold(p, np.array([0, 0, 0, 1, 1])) == pytest.approx(0.2)
    assert best_f1_threshold(p, np.array([1, 1, 0, 0, 0])) == pytest.approx(0.005)
    near = np.array([0.5, np.nextafter(0.5, 1)])
    assert best_f1_threshold(np.stack([1 - near, near], axis=1), np.array([0, 1])) == near[1]
    assert best_f1_threshold(p, np.zeros(5, int)) == 0.5
    assert best_f1_threshold(p, np.ones(5, int)) == 0.5


@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([0, 1, 8]))
@settings(max_examples=30)
def test_no_other_threshold_has_a_higher_f1(seed: int, decimals: int) -> None:
    p, y = case(seed, decimals=decimals)
    best = sk.f1_score(y, predict_classes(p, best_f1_threshold(p, y)))
    accepted = p[:, 1] >= np.unique(p[:, 1])[:, None]
    f1 = 2 * (accepted & (y == 1)).sum(axis=1) / (accepted.sum(axis=1) + (y == 1).sum())
    assert best == pytest.approx(f1.max())


def test_bins_hold_their_lower_edge_and_the_last_one_holds_1() -> None:
    event = np.array([0.0, 0.25, 0.5, 0.99, 1.0])
    bins = calibration_bins(event, np.array([False, False, True, True, True]), n_bins=4)
    assert bins.count.tolist() == [1, 1, 1, 2]
    assert bins.events.tolist() == [0, 0, 1, 2]
    assert bins.probability.tolist() == pytest.approx([0, 0.25, 0.5, 1.99])
    assert bins.index.tolist() == [0, 1, 2, 3, 3]
    assert bins.error == pytest.approx((0.25 + 0.5 + 0.01) / 5)


def test_small_event_probabilities_stay_apart() -> None:
    p = softmax(np.array([[0.0, -60.0], [0.0, -50.0]]), axis=1)
    assert p[0, 0] == p[1, 0] == 1.0
    assert event_probability(p)[0] < event_probability(p)[1]
    assert score(p, np.array([0, 1]), 2)["ap"] == 1.0


def test_certain_and_wrong_has_a_finite_nll() -> None:
    found = probability_scores(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]), constant=0.5)
    assert found["nll"] == pytest.approx(-np.log(np.finfo(float).eps) / 2)
    assert found["ece_constant"] == 0.0


def test_scoring_imports_neither_matplotlib_nor_ray() -> None:
    code = (
        "import sys, tapray.study.metrics, tapray.study.statistics, tapray.study.calibration;"
        "print(sorted({'matplotlib', 'ray', 'mlflow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
