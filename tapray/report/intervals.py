"""How far seeds and test set together move the scores of a study and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import Init
from tapray.report.reliability import Predictions, calibration_of
from tapray.report.tables import BEST, CELL
from tapray.study.metrics import class_scores, predict_classes
from tapray.study.resampling import (
    band,
    difference,
    draws,
    over_seeds,
    resampled_ap,
    resampled_f1,
    seed_weights,
    shared_encoders,
)
from tapray.study.statistics import holm

METRICS = ("ap", "f1")
Cell = tuple[str, str, int]  # init, head, budget
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """The final runs' scores on the same resamples of the test set, (n,) each, by metric, cell and seed."""

    scores: dict[str, dict[Cell, dict[int, FloatArray]]]
    encoders: dict[Cell, dict[int, int]]  # whose features each seed has
    n_groups: int  # of the test set, that are drawn

    def means(self, metric: str, cells: Sequence[Cell], rng: np.random.Generator) -> FloatArray:
        """(C, n) of some cells, over the seeds that all of them have, weighed alike for all of them."""
        own = [self.scores[metric][cell] for cell in cells]
        seeds = sorted(set.intersection(*(set(each) for each in own)))
        weights = seed_weights(
            shared_encoders([[self.encoders[cell][seed] for seed in seeds] for cell in cells]),
            len(own[0][seeds[0]]),
            rng,
        )
        return np.stack([over_seeds(np.stack([each[seed] for seed in seeds]), weights) for each in own])


def resample(predictions: Predictions, n: int, rng: np.random.Generator) -> Resampled:
    """Draws the test set n times by `blocks`.

    Raises:
        ValueError: predictions are not of the same test crops.
    """
    first = next(iter(predictions.values()))
    labels = np.asarray(first["labels"])
    groups, member = np.unique(np.asarray(first["blocks"]), return_inverse=True)
    drawn = draws(len(groups), n, rng)
    scores: dict[str, dict[Cell, dict[int, FloatArray]]] = {metric: {} for metric in METRICS}
    encoders: dict[Cell, dict[int, int]] = {}
    for (init, head, budget, seed), run in predictions.items():
        if not np.array_equal(run["labels"], labels):
            raise ValueError("predictions are not of the same test crops")
        probabilities = calibration_of(run).apply(run["logits"])
        said = predict_classes(probabilities, run["threshold"])
        cell = (str(init), str(head), int(budget))
        ap = resampled_ap(labels, class_scores(probabilities)[None], member, drawn)[0]
        scores["ap"].setdefault(cell, {})[seed] = ap
        scores["f1"].setdefault(cell, {})[seed] = resampled_f1(labels, said[None], member, drawn)[0]
        encoders.setdefault(cell, {})[seed] = run["encoder"]
    return Resampled(scores, encoders, len(groups))


def cell_intervals(resampled: Resampled, rng: np.random.Generator) -> pd.DataFrame:
    """init, head, budget; METRIC_test_low and METRIC_test_high of AP and F1."""
    rows = [
        (*cell, *(end for metric in METRICS for end in band(resampled.means(metric, [cell], rng)[0])))
        for cell in resampled.scores["ap"]
    ]
    bands = [f"{metric}_test_{end}" for metric in METRICS for end in ("low", "high")]
    return pd.DataFrame(rows, columns=[*CELL, *bands])


def pair_intervals(resampled: Resampled, comparisons: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The AP and F1 rows of `compare`, with the interval over seeds and test set beside that over seeds.

    test_low, test_high and p of the difference. claimed: the rows that answer the study's question, AP of the
    heads chosen on validation (of every head where none was). p_holm is p corrected for the number of these,
    in all other rows for the number of those.
    """
    pairs = comparisons[comparisons["metric"].isin(METRICS)].reset_index(drop=True)
    keys: list[tuple[Any, ...]] = [
        (row["metric"], (Init.TAP.value, row["head_tap"], budget), (row["other"], row["head_other"], budget))
        for _, row in pairs.iterrows()
        for budget in [int(row["budget"])]
    ]
    once = list(dict.fromkeys(keys))  # a row "best" may repeat that of its head
    found = {}
    for metric, tap, other in once:
        a, b = resampled.means(metric, [tap, other], rng)
        found[metric, tap, other] = difference(a - b)
    claimed = _claimed(pairs).tolist()
    corrected = _corrected(keys, [found[key].p for key in keys], claimed)
    named = {"test_low": "low", "test_high": "high", "p": "p"}
    pairs = pairs.assign(**{name: [getattr(found[key], own) for key in keys] for name, own in named.items()})
    return pairs.assign(p_holm=corrected, claimed=np.array(claimed, dtype=bool))  # also where there are none


def _claimed(pairs: pd.DataFrame) -> pd.Series:
    best = pairs["head"] == BEST
    chosen = best.groupby([pairs["budget"], pairs["other"]]).transform("any")
    return (pairs["metric"] == "ap") & (best | ~chosen)


def _corrected(keys: Sequence[tuple[Any, ...]], p: Sequence[float], claimed: Sequence[bool]) -> list[float]:
    """Holm's correction within the rows that are claimed and within the others; equal keys count once."""
    own = dict(zip(zip(claimed, keys, strict=True), p, strict=True))
    corrected: dict[tuple[bool, tuple[Any, ...]], float] = {}
    for family in (True, False):
        once = [key for key in own if key[0] is family]
        corrected |= dict(zip(once, holm([own[key] for key in once]).tolist(), strict=True))
    return [corrected[key] for key in zip(claimed, keys, strict=True)]
