"""Seeds and the test set varied together: how far a score holds beyond both.

The test set is drawn anew by whole groups, fields of view or blocks of time, since crops that lie near each
other are no independent samples. Seeds that share an encoder are no independent samples either: they vary
together. All arms of a study are judged on the same resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

FloatArray = NDArray[np.float64]
AT_ONCE = 500_000  # thresholds times resamples that are held, 4 MB an array


def draws(n_groups: int, n: int, rng: np.random.Generator) -> FloatArray:
    """How often each group is drawn, (n, G)."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n).astype(np.float64)


def bootstrap_ratio(
    numerator: FloatArray, denominator: FloatArray, n: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Percentile intervals of sum(numerator) / sum(denominator), each (G, B) by group and bin -> low, high
    (B,).

    Resamples that leave a bin empty are left out; a bin that is always empty is NaN.
    """
    drawn = draws(len(numerator), n, rng)
    below = drawn @ denominator
    ratio = np.divide(drawn @ numerator, below, out=np.full_like(below, np.nan), where=below > 0)
    return bands(ratio, level)


def bands(values: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Percentile intervals of resamples (n, B) -> low, high (B,), without those that are NaN."""
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    seen = (~np.isnan(values)).any(axis=0)
    tail = 100 * (1 - level) / 2
    if seen.any():
        low[seen], high[seen] = np.nanpercentile(values[:, seen], [tail, 100 - tail], axis=0)
    return low, high


def resampled_ap(
    labels: NDArray[Any], scores: FloatArray, member: NDArray[np.int64], drawn: FloatArray
) -> FloatArray:
    """(S, n) average precision on n resamples; NaN without an event.

    Ties are one threshold, as in scikit-learn.

    Args:
        labels: (N,) 0, or the class of the event; scores: (S, C, N) of S seeds on the same crops, for each
            event class (`metrics.class_scores`), of which the mean counts; member: (N,) the group of each
            crop; drawn: (n, G) how often each group is drawn.
    """
    classes = range(scores.shape[1])
    truths = [labels > 0] if len(classes) == 1 else [labels == c + 1 for c in classes]
    each = [_ap_of_class(truths[c], scores[:, c], member, drawn) for c in classes if truths[c].any()]
    mean: FloatArray = np.mean(each or [np.full((len(scores), len(drawn)), np.nan)], axis=0)
    return mean


def _ap_of_class(
    event: NDArray[np.bool_], scores: FloatArray, member: NDArray[np.int64], drawn: FloatArray
) -> FloatArray:
    """(S, n) of one class: scores (S, N).

    Recall rises only at the scores of events, so the crops are counted by group between those scores, and a
    resample is a weighted sum over groups.
    """
    ap = np.empty((len(scores), len(drawn)))
    for row, out in zip(scores, ap, strict=True):
        thresholds = np.unique(row[event])
        place = len(thresholds) - np.searchsorted(thresholds, row, side="right")  # 0: at or above the highest
        shape = (len(thresholds) + 1, drawn.shape[1])  # the last: below every event
        crops = coo_array((np.ones(len(row)), (place, member)), shape=shape).tocsr()
        events = coo_array((event.astype(np.float64), (place, member)), shape=shape).tocsr()
        few = max(1, AT_ONCE // shape[0])
        for first in range(0, len(drawn), few):
            weights = drawn[first : first + few].T
            steps = events @ weights
            found, accepted = steps.cumsum(axis=0), (crops @ weights).cumsum(axis=0)
            area = (steps * found / np.maximum(accepted, 1)).sum(axis=0)
            total = steps.sum(axis=0)
            out[first : first + few] = np.divide(
                area, total, out=np.full_like(total, np.nan), where=total > 0
            )
    return ap


def resampled_f1(
    labels: NDArray[Any], predicted: NDArray[Any], member: NDArray[np.int64], drawn: FloatArray
) -> FloatArray:
    """As `resampled_ap`, the mean F1 over the event classes present; predicted (S, N) classes."""
    each = [_f1_of_class(labels == c, predicted == c, member, drawn) for c in np.unique(labels[labels > 0])]
    mean: FloatArray = np.mean(each or [np.full((len(predicted), len(drawn)), np.nan)], axis=0)
    return mean


def _f1_of_class(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], member: NDArray[np.int64], drawn: FloatArray
) -> FloatArray:
    def counted(which: NDArray[np.bool_]) -> FloatArray:
        by_group = [np.bincount(member, own, drawn.shape[1]) for own in which]
        sums: FloatArray = np.stack(by_group) @ drawn.T
        return sums

    right, said, there = counted(found & truth), counted(found), counted(truth[None])
    return np.divide(2 * right, said + there, out=np.full_like(right, np.nan), where=there > 0)


def seed_weights(encoders: Sequence[int], n: int, rng: np.random.Generator) -> FloatArray:
    """(n, S) what each seed counts in each resample: 1 in all, 1 / S on average.

    A mean over seeds so weighed varies as Student's t says of it, with as many degrees of freedom as there
    are encoders, less one: a few encoders drawn with replacement would promise far too much. Where all seeds
    have one encoder, or each its own, seeds stand for themselves.

    Args:
        encoders: of each seed.
    """
    _, own = np.unique(np.asarray(encoders), return_inverse=True)
    if own.max() == 0:
        own = np.arange(len(own))
    sizes = np.bincount(own)
    k = len(sizes)
    if k == 1:
        return np.ones((n, 1))
    away = rng.normal(size=(n, k))
    away -= away.mean(axis=1, keepdims=True)
    away /= np.sqrt(k * rng.chisquare(k - 1, size=(n, 1)))
    weights: FloatArray = 1 / len(own) + (away / sizes)[:, own]
    return weights


def shared_encoders(arms: Sequence[Sequence[int]]) -> Sequence[int]:
    """The encoders (S,) by which the seeds of several arms are drawn: of the arm that has the fewest.

    But more than one: the luck of a single encoder is in no interval.
    """
    several = [each for each in arms if len(set(each)) > 1]
    return min(several or arms, key=lambda each: len(set(each)))


def over_seeds(values: FloatArray, weights: FloatArray) -> FloatArray:
    """(S, n) by seed and resample, and `seed_weights` (n, S) -> (n,)."""
    mean: FloatArray = (values * weights.T).sum(axis=0)
    return mean


def band(values: FloatArray) -> tuple[float, float]:
    """95 % percentile interval of resamples (n,), without those that are NaN."""
    (low,), (high,) = bands(values[:, None])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """Interval of a difference, and how likely one as large is by chance: two-sided, of n resamples."""

    low: float
    high: float
    p: float


def difference(values: FloatArray) -> Difference:
    """Of resamples (n,) of a difference."""
    known = values[~np.isnan(values)]
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return Difference(*band(values), min(1.0, 2 * (1 + tail) / (1 + len(known))))
