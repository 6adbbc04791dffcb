"""Intervals over seeds (Student t), and over seeds and the test set together (bootstrap).

The two answer different questions: an interval over seeds tells how far the draw of labels and the training
matter on this test set; the bootstrap draws the test set anew too, by whole fields of view or blocks of
time, because crops that lie near each other are no independent samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
FEWEST_FIELDS = 5  # with fewer, blocks of time are drawn and not fields of view
BLOCKS = 10  # of a movie's time


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


def enough_fields(field: NDArray[Any]) -> bool:
    """Whether the crops (N,) lie in so many fields of view that these are drawn, and not blocks of time."""
    return len(np.unique(field)) >= FEWEST_FIELDS


def time_blocks(
    field: NDArray[Any], movie: NDArray[Any], t: NDArray[np.integer[Any]], group: NDArray[Any]
) -> NDArray[np.int64]:
    """(N,) what crops are drawn together when the test set is: their field of view, or a block of time.

    Fields of view where there are `FEWEST_FIELDS`; else each movie's frames are cut into `BLOCKS` of equal
    length, and all crops of a group (of one event, or of one place) go with the first of them.
    """
    if enough_fields(field):
        place: NDArray[np.int64] = np.unique(field, return_inverse=True)[1].astype(np.int64)
        return place
    names, number = np.unique(movie, return_inverse=True)
    _, member = np.unique(group, return_inverse=True)
    first = np.full(member.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, member, t)
    start, stop = (np.zeros(len(names), np.int64) for _ in range(2))
    for own in range(len(names)):
        start[own], stop[own] = t[number == own].min(), t[number == own].max() + 1
    block = (first[member] - start[number]) * BLOCKS // np.maximum(stop - start, 1)[number]
    blocks: NDArray[np.int64] = number * BLOCKS + block
    return blocks


def bootstrap_ap(
    labels: NDArray[Any],
    scores: ArrayLike,
    groups: NDArray[Any],
    n: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean average precision over n resamples of whole groups, and of seeds.

    labels (N,): 0, or the class of the event; scores (S, C, N) of S seeds on the same crops, for each event
    class (`metrics.class_scores`), whose mean counts. Ties are one threshold, as in scikit-learn. Resamples
    without an event of each class are left out.
    """
    ap = _bootstrapped(np.asarray(labels), np.asarray(scores), groups, n, rng)
    return _band(_over_seeds(ap, rng), level)


def bootstrap_f1(
    labels: NDArray[Any],
    predicted: NDArray[Any],
    groups: NDArray[Any],
    n: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """As `bootstrap_ap`, of the mean F1 over the event classes present; predicted (S, N) classes, by seed."""
    _, member = np.unique(groups, return_inverse=True)
    drawn = draws(int(member.max(initial=0)) + 1, n, rng)
    each = [_f1(labels == c, predicted == c, member, drawn) for c in np.unique(labels[labels > 0])]
    if not each:
        return float("nan"), float("nan")
    return _band(_over_seeds(np.mean(each, axis=0), rng), level)


def _f1(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], member: NDArray[np.int64], drawn: FloatArray
) -> FloatArray:
    """(S, n) F1 of one class: truth (N,), found (S, N), member (N,), drawn (n, G); NaN without an event."""

    def counted(which: NDArray[np.bool_]) -> FloatArray:
        by_group = [np.bincount(member, own, drawn.shape[1]) for own in which]
        sums: FloatArray = np.stack(by_group) @ drawn.T
        return sums

    right, said, there = counted(found & truth), counted(found), counted(truth[None])
    return np.divide(2 * right, said + there, out=np.full_like(right, np.nan), where=there > 0)


@dataclass(frozen=True)
class Difference:
    """Interval of a difference, and how likely one as large is by chance: two-sided, of n resamples."""

    low: float
    high: float
    p: float


def paired_bootstrap_ap(
    labels: NDArray[Any],
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: NDArray[Any],
    n: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Difference:
    """As `bootstrap_ap`, of AP(a) - AP(b) on the same resamples; row i of both has the same seed."""
    both = np.concatenate([np.asarray(scores_a), np.asarray(scores_b)])
    a, b = np.split(_bootstrapped(np.asarray(labels), both, groups, n, rng), 2)
    differences = _over_seeds(a - b, rng)
    known = differences[~np.isnan(differences)]
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return Difference(*_band(differences, level), min(1.0, 2 * (1 + tail) / (1 + len(known))))


def holm(p: Sequence[float] | FloatArray) -> FloatArray:
    """P values corrected for their number: the chance of a single false claim among all stays below each.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    out = np.empty_like(values)
    out[order] = raised
    return out


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


def draws(n_groups: int, n: int, rng: np.random.Generator) -> FloatArray:
    """How often each group is drawn, (n, G)."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n).astype(np.float64)


def _bootstrapped(
    labels: NDArray[Any], scores: NDArray[Any], groups: NDArray[Any], n: int, rng: np.random.Generator
) -> FloatArray:
    """(S, n) average precision of scores (S, C, N) on n resamples of groups; NaN without an event."""
    _, member = np.unique(groups, return_inverse=True)
    drawn = draws(int(member.max()) + 1, n, rng)
    classes = range(scores.shape[1])
    truths = [labels > 0] if len(classes) == 1 else [labels == c + 1 for c in classes]
    each = [_of_class(truths[c], scores[:, c], member, drawn) for c in classes if truths[c].any()]
    mean: FloatArray = np.mean(each or [np.full((len(scores), n), np.nan)], axis=0)
    return mean


def _of_class(
    event: NDArray[np.bool_], scores: NDArray[Any], member: NDArray[np.int64], drawn: FloatArray
) -> FloatArray:
    """(S, n) of one class: scores (S, N), member (N,) the group of each crop, drawn (n, G).

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
        steps = events @ drawn.T
        found, accepted = steps.cumsum(axis=0), (crops @ drawn.T).cumsum(axis=0)
        area = (steps * found / np.maximum(accepted, 1)).sum(axis=0)
        total = steps.sum(axis=0)
        out[:] = np.divide(area, total, out=np.full_like(total, np.nan), where=total > 0)
    return ap


def _over_seeds(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(S, n) -> (n,) means over seeds that are drawn anew for each resample."""
    mean: FloatArray = (values * draws(len(values), values.shape[1], rng).T).mean(axis=0)
    return mean


def _band(values: FloatArray, level: float) -> tuple[float, float]:
    (low,), (high,) = bands(values[:, None], level)
    return float(low), float(high)
