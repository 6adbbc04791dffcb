"""Intervals over seeds (Student t), p values of many comparisons, and what of a test set is drawn together.

An interval over seeds tells how far the draw of labels and the training matter on this test set;
`tapray.study.resampling` draws the test set anew too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
