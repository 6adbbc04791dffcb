"""What final runs said about the test crops, and how far their probabilities can be relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.study.calibration import Calibration
from tapray.study.metrics import N_BINS, calibration_bins, event_probability
from tapray.study.resampling import bootstrap_ratio
from tapray.study.statistics import interval

RESAMPLES = 1000


class Prediction(TypedDict):
    """What one final run said about the N test crops."""

    labels: NDArray[np.integer[Any]]  # (N,) in 0..K-1
    logits: NDArray[np.floating[Any]]  # (N, K), not calibrated
    temperature: float
    bias: Sequence[float]  # K, of class 0 first
    groups: NDArray[Any]  # (N,) cluster of each crop
    val_logits: NDArray[np.floating[Any]]  # (M, K), of the validation crops, where calibration was fitted
    val_labels: NDArray[np.integer[Any]]  # (M,)
    threshold: float  # on p(event), chosen on validation
    blocks: NDArray[Any]  # (N,) field of view or block of time, see `tapray.study.statistics.time_blocks`
    encoder: int  # whose features it has; seeds of an arm may share one


Predictions = Mapping[tuple[str, str, int, int], Prediction]  # by init, head, budget, seed


def calibration_of(run: Prediction) -> Calibration:
    """The run's own, fitted on validation."""
    return Calibration(run["temperature"], tuple(run["bias"]))


def reliability_table(
    runs: Sequence[Prediction], calibrated: bool, rng: np.random.Generator
) -> tuple[pd.DataFrame, str]:
    """Bins of the event probability pooled over the seeds of one cell, and the ECE over seeds as text.

    Columns: bin_low, bin_high, crops_per_seed, probability (mean predicted), event_share, low, high (95 %).
    """
    _, block = np.unique(runs[0]["blocks"], return_inverse=True)
    sums = np.zeros((3, block.max() + 1, N_BINS))  # crops, probability and events, by block and bin
    errors = []
    for run in runs:
        k = np.shape(run["logits"])[1]
        fitted = calibration_of(run) if calibrated else Calibration.identity(k)
        event, truth = event_probability(fitted.apply(run["logits"])), np.asarray(run["labels"]) > 0
        bins = calibration_bins(event, truth)
        errors.append(bins.error)
        for total, weight in zip(sums, (np.ones(len(event)), event, truth), strict=True):
            np.add.at(total, (block, bins.index), weight)
    low, high = bootstrap_ratio(sums[2], sums[0], RESAMPLES, rng)
    count, probability, events = sums.sum(axis=1)
    edges, filled = np.linspace(0, 1, N_BINS + 1), np.where(count > 0, count, np.nan)
    columns = {"bin_low": edges[:-1], "bin_high": edges[1:], "crops_per_seed": count / len(runs)}
    columns |= {"probability": probability / filled, "event_share": events / filled, "low": low, "high": high}
    mean, _, bottom, top = interval(errors)
    return pd.DataFrame(columns), f"{mean:.3f} [{bottom:.3f}, {top:.3f}]"
