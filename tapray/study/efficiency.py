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
    budgets: FloatArray, scores: FloatArray, target: float, n: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """`labels_needed` for the mean over seeds, with its 95 % percentile interval over seeds drawn anew.

    Args:
        scores: (S, B) by seed and budget.
    """
    value = labels_needed(budgets, scores.mean(axis=0), target)
    drawn = scores[_seeds(len(scores), n, rng)].mean(axis=1)
    low, high = np.quantile(labels_needed(budgets, drawn, target), [0.025, 0.975], method="nearest")
    return float(value), float(low), float(high)


def ratio_interval(
    budgets: FloatArray, tap: FloatArray, other: FloatArray, n: int, rng: np.random.Generator
) -> list[tuple[float, float, float]]:
    """Label-efficiency ratio at each budget: labels the other arm needs for what tap reaches there, over it.

    Args:
        tap, other: (S, B) scores of the same seeds.

    Returns:
        Of each budget the ratio of the means over seeds and its 95 % interval, seeds drawn anew for both
        arms together; infinity where the other arm does not get there with the budgets that were run, and
        the smallest of them over the budget where it is there already with that one (read: at most).
    """
    pick = _seeds(len(tap), n, rng)
    rows = []
    for column, budget in enumerate(budgets):
        ratio = labels_needed(budgets, other.mean(axis=0), _rising(tap.mean(axis=0))[column]) / budget
        goals = _rising(tap[pick].mean(axis=1))[:, column]
        drawn = labels_needed(budgets, other[pick].mean(axis=1), goals) / budget
        low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
        rows.append((float(ratio), float(low), float(high)))
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


def _seeds(seeds: int, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n, S) seeds drawn with replacement."""
    return rng.integers(seeds, size=(n, seeds))
