"""Intervals over seeds (Student t) and over the test set (bootstrap of whole groups of crops).

The two answer different questions: an interval over seeds tells how far the draw of labels and the training
matter on this test set, the bootstrap how far the choice of test crops matters for these models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]


def interval(values: Sequence[float] | FloatArray, level: float = 0.95) -> tuple[float, float, float, float]:
    """Mean, standard deviation (n - 1), low and high of Student's t interval of the mean over seeds.

    One value has neither deviation nor interval (NaN). The interval is not clipped to the range of the
    metric.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return (float(x[0]) if len(x) else float("nan")), float("nan"), float("nan"), float("nan")
    mean, std = float(x.mean()), float(x.std(ddof=1))
    half = float(stdtrit(len(x) - 1, (1 + level) / 2)) * std / np.sqrt(len(x))
    return mean, std, mean - half, mean + half


def paired_interval(
    a: Sequence[float] | FloatArray, b: Sequence[float] | FloatArray, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of a - b and its Student t interval; entry i of both has the same seed (same labels, same test
    set)."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"paired values differ in number: {x.shape} and {y.shape}")
    mean, _, low, high = interval(x - y, level)
    return mean, low, high


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float],
    groups: NDArray[Any],
    n: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of `statistic(indices of crops)` over n resamples of whole groups, with
    replacement.

    groups (N,) names the cluster of each crop (neighbouring crops of one event or place share one): crops of
    a cluster are not independent, so they are drawn together. Resamples where the statistic is NaN are left
    out.
    """
    _, member = np.unique(groups, return_inverse=True)
    order = np.argsort(member, kind="stable")
    blocks = np.split(order, np.cumsum(np.bincount(member))[:-1])
    draws = rng.integers(len(blocks), size=(n, len(blocks)))
    values = [statistic(np.concatenate([blocks[g] for g in draw])) for draw in draws]
    return _percentiles(np.asarray(values, dtype=np.float64), level)


def bootstrap_ap(
    labels: NDArray[Any],
    scores: ArrayLike,
    groups: NDArray[Any],
    n: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the average precision over n resamples of whole groups.

    labels (N,), above 0 for events; scores (N,) or (S, N), then of the mean AP of S seeds on the same crops.
    Ties are one threshold, as in scikit-learn. Resamples without an event are left out.
    """
    _, member = np.unique(groups, return_inverse=True)
    drawn = _draws(int(member.max()) + 1, n, rng)
    return _percentiles(_resampled_ap(np.asarray(labels) > 0, np.atleast_2d(scores), member, drawn), level)


def paired_bootstrap_ap(
    labels: NDArray[Any],
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: NDArray[Any],
    n: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """As `bootstrap_ap`, of AP(a) - AP(b) on the same resamples."""
    _, member = np.unique(groups, return_inverse=True)
    drawn = _draws(int(member.max()) + 1, n, rng)
    event = np.asarray(labels) > 0
    a, b = (_resampled_ap(event, np.atleast_2d(scores), member, drawn) for scores in (scores_a, scores_b))
    return _percentiles(a - b, level)


def bootstrap_ratio(
    numerator: FloatArray, denominator: FloatArray, n: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Percentile intervals of sum(numerator) / sum(denominator), each (G, B) by group and bin -> low, high
    (B,).

    Resamples that leave a bin empty are left out; a bin that is always empty is NaN.
    """
    drawn = _draws(len(numerator), n, rng)
    below = drawn @ denominator
    ratio = np.divide(drawn @ numerator, below, out=np.full_like(below, np.nan), where=below > 0)
    low, high = np.full(ratio.shape[1], np.nan), np.full(ratio.shape[1], np.nan)
    seen = (~np.isnan(ratio)).any(axis=0)
    tail = 100 * (1 - level) / 2
    low[seen], high[seen] = np.nanpercentile(ratio[:, seen], [tail, 100 - tail], axis=0)
    return low, high


def _draws(n_groups: int, n: int, rng: np.random.Generator) -> FloatArray:
    """How often each group is drawn, (n, G)."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n).astype(np.float64)


def _resampled_ap(
    event: NDArray[np.bool_], scores: NDArray[Any], member: NDArray[np.intp], drawn: FloatArray
) -> FloatArray:
    """(n,) average precision of each resample, meaned over the rows of scores (S, N); NaN without an event.

    Recall rises only at the scores of events, so the crops are counted by group between those scores, and a
    resample is a weighted sum over groups.
    """
    ap = np.zeros(len(drawn))
    for row in scores:
        thresholds = np.unique(row[event])
        place = len(thresholds) - np.searchsorted(thresholds, row, side="right")  # 0: at or above the highest
        shape = (len(thresholds) + 1, drawn.shape[1])  # the last: below every event
        crops = coo_array((np.ones(len(row)), (place, member)), shape=shape).tocsr()
        events = coo_array((event.astype(np.float64), (place, member)), shape=shape).tocsr()
        steps = events @ drawn.T
        found, accepted = steps.cumsum(axis=0), (crops @ drawn.T).cumsum(axis=0)
        area = (steps * found / np.maximum(accepted, 1)).sum(axis=0)
        total = steps.sum(axis=0)
        ap += np.divide(area, total, out=np.full_like(total, np.nan), where=total > 0) / len(scores)
    return ap


def _percentiles(values: FloatArray, level: float) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
