"""Scores of an event head: ranking, decisions, calibration.

Class 0 is "no event", classes 1..K-1 are events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    matthews_corrcoef,
    precision_recall_curve,
    precision_recall_fscore_support,
)

FloatArray = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]

N_BINS = 15


def event_probability(probabilities: FloatArray) -> FloatArray:
    """(N, K) -> (N,) probability of any event: 1 - p_none, as a sum that keeps small values distinct."""
    total: FloatArray = np.asarray(probabilities, dtype=np.float64)[:, 1:].sum(axis=1)
    return total.clip(0.0, 1.0)


def predict_classes(probabilities: FloatArray, threshold: float | None = None) -> NDArray[np.int64]:
    """(N, K) -> (N,) int64 classes: the most probable, or with a threshold the likelier event from there on.

    At 3 % events the most probable class is rarely an event, so a threshold chosen on validation
    (`best_f1_threshold`) is the fairer decision.
    """
    if threshold is None:
        return np.asarray(np.argmax(probabilities, axis=1))
    kind = 1 + np.argmax(probabilities[:, 1:], axis=1)
    return np.asarray(np.where(event_probability(probabilities) >= threshold, kind, 0))


def best_f1_threshold(probabilities: FloatArray, labels: Labels) -> float:
    """Threshold on p(event) of highest F1 of event against none, for validation crops.

    It lies half-way between the lowest probability that is accepted and the next one below, so that it is not
    tied to one crop. Without any event, or with nothing else, 0.5.
    """
    event = np.asarray(labels) > 0
    if event.all() or not event.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(event, event_probability(probabilities))
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))  # the last point has no threshold
    return half_way(thresholds[best], thresholds[best - 1] if best > 0 else 0.0)


def half_way(accepted: float, below: float) -> float:
    """A threshold between the lowest probability that is accepted and the next one below."""
    middle = (accepted + below) / 2
    return float(middle if middle > below else accepted)  # neighbouring floats have no middle


def average_precision(probabilities: FloatArray, labels: Labels, n_classes: int) -> float:
    """Of event against none; for K > 2 the mean of the one-vs-rest values of the event classes present.

    NaN without an event.
    """
    present = [c for c in range(1, n_classes) if (labels == c).any()]
    ap = [average_precision_score(labels == c, class_scores(probabilities)[c - 1]) for c in present]
    return float(np.mean(ap)) if ap else float("nan")


def class_scores(probabilities: FloatArray) -> FloatArray:
    """(N, K) -> (K - 1, N): by what the crops are ranked for each event class."""
    if probabilities.shape[1] == 2:
        return event_probability(probabilities)[None]
    return np.asarray(probabilities, dtype=np.float64)[:, 1:].T


def score(
    probabilities: FloatArray, labels: Labels, n_classes: int, threshold: float | None = None
) -> dict[str, float]:
    """Ranking and decision scores of (N, K) probabilities against (N,) labels.

    Keys: ap (event against none; for K > 2 the mean of the one-vs-rest values of the event classes present),
    f1 (mean over the event classes present), precision_c and recall_c for c in 0..K-1, balanced_accuracy,
    mcc. All but ap judge `predict_classes(probabilities, threshold)`. Precision is 0 where a class is never
    predicted; what a class absent from the labels would need is NaN. mcc is 0 where the labels hold one class
    only.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if probabilities.shape != (len(labels), n_classes):
        raise ValueError(
            f"probabilities of shape {probabilities.shape} for {len(labels)} crops, {n_classes} classes"
        )
    classes = np.arange(n_classes)
    present = np.isin(classes, labels)
    predicted = predict_classes(probabilities, threshold)
    parts = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    precision, recall, f1 = (np.where(present, part, np.nan) for part in parts[:3])
    events = classes[1:][present[1:]]
    return {
        "ap": average_precision(probabilities, labels, n_classes),
        "f1": float(np.mean(f1[events])) if len(events) else float("nan"),
        **{f"precision_{c}": float(precision[c]) for c in classes},
        **{f"recall_{c}": float(recall[c]) for c in classes},
        "balanced_accuracy": float(np.mean(recall[present])),
        "mcc": float(matthews_corrcoef(labels, predicted)) if present.sum() > 1 else 0.0,
    }


@dataclass(frozen=True)
class Bins:
    """Equal-width bins of the event probability; each array (B,) float64, `index` (N,) the bin of each crop.

    A probability on an edge belongs to the bin above it, and 1 to the last bin. Sums rather than means, so
    that bins of several runs add up.
    """

    count: FloatArray
    probability: FloatArray  # sum of the predicted event probabilities
    events: FloatArray  # number of events
    index: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3) of the event class."""
        return float(np.abs(self.probability - self.events).sum() / self.count.sum())


def bin_index(values: FloatArray, edges: FloatArray) -> NDArray[np.int64]:
    """(N,) the bin between rising edges; a value on an edge belongs to the bin above it."""
    found: NDArray[np.int64] = (np.searchsorted(edges, values, side="right") - 1).clip(0, len(edges) - 2)
    return found


def calibration_bins(event: FloatArray, is_event: NDArray[np.bool_], n_bins: int = N_BINS) -> Bins:
    """Bins event probabilities (N,) with their truth (N,); reliability diagram and ECE come from here."""
    edges = np.linspace(0, 1, n_bins + 1)
    index = bin_index(event, edges)
    weights = (None, np.asarray(event, dtype=np.float64), np.asarray(is_event, dtype=np.float64))
    count, probability, events = (np.bincount(index, w, n_bins).astype(np.float64) for w in weights)
    return Bins(count, probability, events, index.astype(np.int64))


def probability_scores(probabilities: FloatArray, labels: Labels, constant: float) -> dict[str, float]:
    """Keys ece, ece_constant, nll, brier of (N, K) probabilities against (N,) labels.

    ece, ece_constant and brier judge p(event) against event or none; nll (nats per crop) judges all classes,
    its probabilities clipped at the smallest float64 step. `constant` is the event share of the crops a
    useless model could have learned from (validation or training): ece_constant is the ECE of predicting it
    everywhere, which any useful calibration must be read beside.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    event, is_event = event_probability(probabilities), labels > 0
    likelihood = probabilities[np.arange(len(labels)), labels].clip(np.finfo(np.float64).eps, 1.0)
    return {
        "ece": calibration_bins(event, is_event).error,
        "ece_constant": calibration_bins(np.full(len(labels), float(constant)), is_event).error,
        "nll": float(-np.log(likelihood).mean()),
        "brier": float(brier_score_loss(is_event, event, pos_label=True)),
    }
