"""How many labels are needed: budgets between those that were run, read off the line through the means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def labels_needed(budgets: FloatArray, scores: FloatArray, target: float | FloatArray) -> FloatArray:
    """The smallest budget at which the mean score reaches the target, interpolated over log budget.

    Args:
        budgets: (B,) rising; scores: (..., B) means at these budgets; target: (...).

    Returns:
        (...) the budget; the smallest one where it is reached there already (read: at most that many),
        infinity where it is not reached (read: more than the largest).
    """
    best = _rising(scores)
    goal = np.asarray(target)[..., None]
    reached = best >= goal
    right = reached.argmax(axis=-1)
    left = np.maximum(right - 1, 0)
    low, high = (np.take_along_axis(best, side[..., None], axis=-1)[..., 0] for side in (left, right))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(right > 0, (goal[..., 0] - low) / (high - low), 0.0)
    log = np.log(budgets)
    found = np.exp(log[left] + part * (log[right] - log[left])).clip(budgets[left], budgets[right])
    out: FloatArray = np.where(reached.any(axis=-1), found, np.inf)
    return out


def needed_interval(
    budgets: FloatArray, scores: FloatArray, drawn: FloatArray, target: float
) -> tuple[float, float, float]:
    """`labels_needed` for the mean scores (B,), with its 95 % percentile interval over resamples (n, B)."""
    value = labels_needed(budgets, scores, target)
    return float(value), *_ends(labels_needed(budgets, _known(drawn), target))


def ratio_interval(
    budgets: FloatArray, scores: FloatArray, drawn: FloatArray
) -> list[tuple[float, float, float]]:
    """Label-efficiency ratio at each budget: labels the other arm needs for what tap reaches there, over it.

    Args:
        scores: (2, B) means of tap and of the other arm; drawn: (2, n, B) on resamples that both share.

    Returns:
        Of each budget the ratio and its 95 % interval; infinity where the other arm does not get there with
        the budgets that were run, and the smallest of them over the budget where it is there already with
        that one (read: at most).
    """
    tap, other = _rising(scores[0]), scores[1]
    both = _known(np.concatenate(tuple(drawn), axis=1))
    tap_drawn, other_drawn = _rising(both[:, : len(budgets)]), both[:, len(budgets) :]
    rows = []
    for column, budget in enumerate(budgets):
        ratio = labels_needed(budgets, other, tap[column]) / budget
        rows.append(
            (float(ratio), *_ends(labels_needed(budgets, other_drawn, tap_drawn[:, column]) / budget))
        )
    return rows


def pareto(gain: NDArray[Any], cost: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) which points no other one beats: none has as much gain at less cost, or more at no more cost."""
    better = (gain[None] >= gain[:, None]) & (cost[None] <= cost[:, None])
    strictly = (gain[None] > gain[:, None]) | (cost[None] < cost[:, None])
    front: NDArray[np.bool_] = ~np.any(better & strictly, axis=1)
    return front


def _rising(scores: FloatArray) -> FloatArray:
    """The best so far, over budgets: a dip is noise, more labels are never worse."""
    best: FloatArray = np.maximum.accumulate(scores, axis=-1)
    return best


def _known(drawn: FloatArray) -> FloatArray:
    """Resamples (n, B) without those that hold no event, whose scores are NaN."""
    return drawn[~np.isnan(drawn).any(axis=1)]


def _ends(values: FloatArray) -> tuple[float, float]:
    """95 % percentile interval; values may be infinite."""
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return float(low), float(high)
