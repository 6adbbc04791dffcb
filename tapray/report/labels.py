"""Tables and pictures of how many labels an arm needs, and of what a search found between two goals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tapray.config import Init
from tapray.report.figures import BLACK, GREY, LOOK, STYLES, save
from tapray.report.intervals import Resampled
from tapray.report.tables import chosen_heads, ordered, summarise
from tapray.study.efficiency import needed_interval, pareto, ratio_interval

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of F1


def needed_table(results: pd.DataFrame, resampled: Resampled, rng: np.random.Generator) -> pd.DataFrame:
    """Labels needed for F1 of at least each target.

    Columns: init, head, target, needed, low, high (95 % over seeds and test set). Needed at the smallest
    budget that was run reads "at most", infinity "more than the largest".
    """
    rows = []
    for key, runs in ordered(results).groupby(["init", "head"], sort=False):
        init, head = map(str, key)
        scores = _wide(runs, "f1")
        if len(scores.columns) > 1 and len(scores):
            drawn = resampled.means("f1", [(init, head, int(b)) for b in scores.columns], rng).T
            given = scores.columns.to_numpy(np.float64), scores.mean().to_numpy(np.float64), drawn
            rows += [(init, head, target, *needed_interval(*given, target)) for target in TARGETS]
    return pd.DataFrame(rows, columns=["init", "head", "target", "needed", "low", "high"])


def efficiency_table(
    results: pd.DataFrame, trials: pd.DataFrame, resampled: Resampled, rng: np.random.Generator
) -> pd.DataFrame:
    """Label-efficiency ratio of tap to every other init, by budget and metric, with each side's best head.

    Columns: other, head_tap, head_other, metric, budget, ratio, low, high (95 % over seeds and test set). The
    head is the one chosen on validation at the largest budget.
    """
    heads, largest = chosen_heads(trials), int(results["budget"].max())
    rows = []
    for other in dict.fromkeys(ordered(results)["init"]):
        if other == Init.TAP or not {(Init.TAP, largest), (other, largest)} <= set(heads):
            continue
        names = [heads[init, largest] for init in (Init.TAP, other)]
        sides = [_of(results, init, head) for init, head in zip((Init.TAP, other), names, strict=True)]
        for metric in ("ap", "f1"):
            wide = [side.pivot(index="seed", columns="budget", values=metric) for side in sides]
            budgets = wide[0].columns.intersection(wide[1].columns)
            wide = [side[budgets].dropna() for side in wide]
            both = wide[0].index.intersection(wide[1].index)  # the seeds that each side has of all budgets
            if len(budgets) > 1 and len(both):
                scores = np.stack([side.loc[both, budgets].mean().to_numpy(np.float64) for side in wide])
                arms = zip((Init.TAP.value, other), names, strict=True)
                cells = [(init, head, int(b)) for init, head in arms for b in budgets]
                drawn = np.stack(np.split(resampled.means(metric, cells, rng), 2)).swapaxes(1, 2)
                found = ratio_interval(budgets.to_numpy(np.float64), scores, drawn)
                rows += [(other, *names, metric, int(b), *r) for b, r in zip(budgets, found, strict=True)]
    columns = ["other", "head_tap", "head_other", "metric", "budget", "ratio", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _of(results: pd.DataFrame, init: str, head: str) -> pd.DataFrame:
    return results[(results["init"] == init) & (results["head"] == head)]


def _wide(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Scores by seed and budget, of the seeds that have them all."""
    return runs.pivot(index="seed", columns="budget", values=metric).dropna()


def front_table(results: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """What is to be had: search trials by average precision and ECE on validation, arms by budget and AP.

    Columns: what (trial or arm), init, head, budget, trial, ap, cost, on_front. The cost of a trial is its
    ECE, within its budget; that of an arm its budget, its AP the mean over seeds on test.
    """
    tried = ordered(trials[trials["status"] == "done"]) if len(trials) else trials
    parts = []
    for _, own in tried.groupby("budget") if "val_ece" in tried else ():
        front = pareto(own["val_ap"].to_numpy(), own["val_ece"].to_numpy())
        parts.append(own.assign(what="trial", ap=own["val_ap"], cost=own["val_ece"], on_front=front))
    arms = summarise(results)
    front = pareto(arms["ap_mean"].to_numpy(), arms["budget"].to_numpy())
    parts.append(arms.assign(what="arm", ap=arms["ap_mean"], cost=arms["budget"], on_front=front))
    columns = ["what", "init", "head", "budget", "trial", "ap", "cost", "on_front"]
    return pd.concat(parts).reindex(columns=columns).reset_index(drop=True)


def front_figure(fronts: pd.DataFrame, unit: str, path: Path) -> list[Path]:
    """Left each budget's search trials, right the arms by budget; what nothing beats is ringed and joined.

    Returns the paths of PNG (`path`), SVG and CSV.
    """
    trials, arms = (fronts[fronts["what"] == what] for what in ("trial", "arm"))
    budgets = sorted(trials["budget"].unique())
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(1.2 + 2.7 * (len(budgets) + 1), 3.5))
        panels = figure.subplots(1, len(budgets) + 1, squeeze=False)[0]
        for budget, panel in zip(budgets, panels, strict=False):
            _front(panel, trials[trials["budget"] == budget])
            panel.set(title=f"{budget} {unit}", xlabel="ECE on validation")
        _front(panels[-1], arms)
        panels[-1].set(title="final runs", xlabel=f"labelled {unit} (log scale)", xscale="log")
        panels[0].set_ylabel("average precision")
        names = dict[str, Any]()
        for panel in panels:
            names |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
        figure.legend(names.values(), names.keys(), loc="outside upper center", ncols=max(1, len(names)))
        return save(figure, fronts, path)


def _front(panel: Any, points: pd.DataFrame) -> None:
    for init, own in points.groupby("init", sort=False):
        colour, marker, _ = STYLES[Init(str(init))]
        panel.plot(own["cost"], own["ap"], ls="", marker=marker, color=colour, ms=4, alpha=0.7, label=init)
    best = points[points["on_front"]].sort_values(["cost", "ap"])
    panel.plot(best["cost"], best["ap"], color=GREY, lw=0.8, zorder=1)
    panel.plot(best["cost"], best["ap"], ls="", marker="o", ms=9, mfc="none", mec=BLACK, mew=0.8)


def bounds(value: float, budgets: Sequence[float]) -> str:
    """A number of labels in words: within the budgets that were run, or beyond them."""
    if value <= budgets[0]:
        return f"≤ {budgets[0]:.0f}"
    return f"> {budgets[-1]:.0f}" if np.isinf(value) else f"{value:.0f}"
