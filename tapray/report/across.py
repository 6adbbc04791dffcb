"""Scores of a study's variants set against each other, and what a leaky split adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tapray.report.intervals import METRICS, Cell, FloatArray, Resampled, resample
from tapray.report.reliability import Predictions
from tapray.report.tables import CELL
from tapray.study.resampling import difference
from tapray.study.results import Results

N_RESAMPLES = 2000
DIFFERENCE_COLUMNS = [
    *("variant", "other", *CELL, "metric", "paired", "mean", "mean_other", "difference", "low", "high"),
]
LIKE = ["crop_size", "area_threshold"]  # settings that a leaky variant shares with the one it belongs to
INFLATION_COLUMNS = [*LIKE, *CELL, "metric", "leaky", "leak_free", "inflation", "low", "high"]
PREVALENCES = ["prevalence_leaky", "prevalence_leak_free"]


def variant_differences(found: Mapping[str, Results], rng: np.random.Generator) -> pd.DataFrame:
    """Each variant's mean AP and F1 minus those of each before it, by init, head and budget.

    low and high (95 %): seeds, the encoders that they share, and the test set are drawn anew; as pairs where
    both variants are judged at the same test places (`paired`), else each for itself.

    Args:
        found: of each variant, in the order of the study file.
    """
    drawn, rows = _resampled({name: own.predictions for name, own in found.items()}, rng), []
    for other, variant in combinations(found, 2):
        paired = drawn[variant] is drawn[other]
        both = _means(found[variant].results, found[other].results, paired=paired)
        for cell in both[0].index.intersection(both[1].index, sort=False):
            for metric in METRICS:
                means = [float(own.loc[cell, metric]) for own in both]
                spread = difference(_apart(drawn, variant, other, cell, metric, rng))
                told = (metric, paired, *means, means[0] - means[1])
                rows.append((variant, other, *cell, *told, spread.low, spread.high))
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)


def _means(one: pd.DataFrame, other: pd.DataFrame, *, paired: bool) -> list[pd.DataFrame]:
    """Mean scores by cell; of pairs over the seeds that both have."""
    key = [*CELL, "seed"]
    sides = [one, other]
    if paired:
        sides = [own.merge(rest[key], on=key) for own, rest in ((one, other), (other, one))]
    return [own.groupby(CELL)[[*METRICS]].mean() for own in sides]


def _resampled(found: Mapping[str, Predictions], rng: np.random.Generator) -> dict[str, Resampled]:
    """Of each variant; one and the same for those that are judged at the same test places."""
    alike: dict[tuple[bytes, ...], list[str]] = {}
    for name, predictions in found.items():
        run = next(iter(predictions.values()))
        test = tuple(np.asarray(run[part]).tobytes() for part in ("labels", "groups", "blocks"))
        alike.setdefault(test, []).append(name)
    drawn: dict[str, Resampled] = {}
    for names in alike.values():
        together: Any = {
            (_arm(name, key[0]), *key[1:]): run for name in names for key, run in found[name].items()
        }
        drawn |= dict.fromkeys(names, resample(together, N_RESAMPLES, rng))
    return drawn


def _arm(variant: str, init: str) -> str:
    return f"{variant}/{init}"


def _apart(
    drawn: Mapping[str, Resampled],
    variant: str,
    other: str,
    cell: Cell,
    metric: str,
    rng: np.random.Generator,
) -> FloatArray:
    """Resamples of a difference."""
    mine, theirs = ((_arm(name, cell[0]), cell[1], int(cell[2])) for name in (variant, other))
    if drawn[variant] is drawn[other]:
        a, b = drawn[variant].means(metric, [mine, theirs], rng)
    else:
        a, b = (drawn[n].means(metric, [key], rng)[0] for n, key in ((variant, mine), (other, theirs)))
    apart: FloatArray = a - b
    return apart


def inflation_table(differences: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """What a leaky split adds: its mean score minus that of the split without a leak.

    Columns: LIKE, the cell, metric, leaky and leak_free (means over seeds), inflation with low and high, then
    the share of events among the test crops of either: what chance reaches differs where that does. Settings
    of which there are several variants of either kind have no rows: which belong together is not known.

    Args:
        differences: as `variant_differences` makes them.
        facts: one row a variant: variant, LIKE, is_leaky, prevalence.
    """
    parts = []
    for like, own in facts.groupby(LIKE, sort=False):
        leaky, free = own[own["is_leaky"]], own[~own["is_leaky"]]
        if len(leaky) == len(free) == 1:
            one, two = leaky.iloc[0], free.iloc[0]
            rows = _signed(differences, one["variant"], two["variant"])
            shares = dict(zip(PREVALENCES, (one["prevalence"], two["prevalence"]), strict=True))
            settings: dict[str, Any] = dict(zip(LIKE, like, strict=True))
            parts.append(rows.assign(**settings, **shares))
    columns = [*INFLATION_COLUMNS, *PREVALENCES]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _signed(differences: pd.DataFrame, leaky: str, free: str) -> pd.DataFrame:
    """The rows of two variants as leaky minus leak-free, whichever comes first in the study file."""
    pair = differences["variant"].isin([leaky, free]) & differences["other"].isin([leaky, free])
    rows = differences[pair]
    turned = rows["variant"].eq(free).any()
    names = {"mean": "leaky", "mean_other": "leak_free", "difference": "inflation"}
    if not turned:
        return rows.rename(columns=names)
    ends = {"low": -rows["high"], "high": -rows["low"], "difference": -rows["difference"]}
    return rows.assign(**ends).rename(columns=names | {"mean": "leak_free", "mean_other": "leaky"})
