"""Tables of a study: final runs, search trials, summary over seeds, paired comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from tapray.config import HeadKind, Init
from tapray.study.statistics import interval, paired_interval

CELL = ["init", "head", "budget"]
BY_CLASS = [f"{name}_{label}" for label in range(3) for name in ("precision", "recall")]
METRICS = [
    *("ap", "f1", *BY_CLASS),
    *("balanced_accuracy", "mcc", "temperature", "ece_before", "ece_after", "ece_constant"),
    *("nll_before", "nll_after", "brier_before", "brier_after"),
]
RESULT_COLUMNS = [
    *("init", "head", "budget", "budget_unit", "seed", "encoder", "split", "n_train", "n_test"),
    *("n_events_train", "n_events_test", "prevalence", "arrow_accuracy", "val_ap"),
    *METRICS[: METRICS.index("temperature") + 1],
    *("bias", *METRICS[METRICS.index("ece_before") :], *(f"{name}_argmax" for name in BY_CLASS), "leaky"),
]
BOOKKEEPING = ["seconds", "work", "rungs", "tune_trial"]  # of trials, in no table
COMPARED = ["ap", "f1", "mcc", "ece_after", "nll_after", "brier_after"]
COMPARISON_COLUMNS = [
    *("budget", "budget_unit", "head", "head_tap", "other", "head_other", "metric", "n_seeds"),
    *(
        "mean_tap",
        "low_tap",
        "high_tap",
        "mean_other",
        "low_other",
        "high_other",
        "difference",
        "low",
        "high",
    ),
]
BEST = "best"  # in place of a head: the one chosen on validation
RANKS = {name: rank for rank, name in enumerate([*map(str, Init), *map(str, HeadKind), BEST])}


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path` that takes its place once the block has succeeded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Same table, same bytes: floats with 6 significant digits, NaN empty, lines ending in a line feed."""
    with beside(path) as part:
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    return path


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by init and head as the configuration lists them, then budget, seed, trial; names as plain str."""
    names = [name for name in ("init", "head", "head_tap", "other", "head_other") if name in table]
    table = table.assign(**{name: [str(value) for value in table[name]] for name in names})
    keys = [key for key in ("init", "other", "head", "budget", "seed", "trial", "metric") if key in table]
    rank = {**RANKS, **{name: i for i, name in enumerate(COMPARED)}}
    return table.sort_values(
        keys,
        key=lambda column: column.map(rank) if column.name in (*names, "metric") else column,
        kind="stable",
    ).reset_index(drop=True)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row per init, head and budget: METRIC_mean, _std, _low, _high over seeds (95 %, Student t).

    Raises ValueError where the results mix splits, which no mean may do.
    """
    if results["split"].nunique() > 1:
        raise ValueError("results of several splits cannot be summarised together")
    results = ordered(results.reindex(columns=RESULT_COLUMNS))
    shared = ["n_train", "n_test", "n_events_train", "n_events_test", "prevalence", "arrow_accuracy"]
    rows = []
    for cell, runs in results.groupby(CELL, sort=False):
        row: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        row |= {name: runs[name].iloc[0] for name in ("budget_unit", "split", "leaky")}
        row |= {"n_seeds": len(runs), **{name: runs[name].mean() for name in shared}}
        for metric in METRICS:
            names = (f"{metric}_{part}" for part in ("mean", "std", "low", "high"))
            row |= dict(zip(names, interval(runs[metric].to_numpy(float)), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def chosen_heads(trials: pd.DataFrame) -> dict[tuple[str, int], str]:
    """(init, budget) -> the head whose best search trial has the highest val_ap; test scores play no part."""
    if trials.empty:
        return {}
    tried = ordered(trials[trials["status"] == "done"])  # pruned ones keep the score of their last rung
    best = tried.groupby(["init", "budget", "head"], sort=False)["val_ap"].max().reset_index()
    best = best.loc[best.groupby(["init", "budget"], sort=False)["val_ap"].idxmax()]
    return {(init, int(budget)): head for init, budget, head in best[["init", "budget", "head"]].to_numpy()}


def compare(results: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """tap minus every other init, paired over the seeds that both have: mean difference and 95 % interval.

    One row per budget, head, other init and metric, with the same head on both sides; rows with head "best"
    take for either side the head chosen on validation (`chosen_heads`).
    """
    results = ordered(results)
    heads, chosen = list(dict.fromkeys(results["head"])), chosen_heads(trials)
    rows = []
    for budget, other in (
        results[results["init"] != Init.TAP][["budget", "init"]].drop_duplicates().to_numpy()
    ):
        pairs = [(head, head, head) for head in heads]
        if (Init.TAP, budget) in chosen and (other, budget) in chosen:
            pairs.append((BEST, chosen[Init.TAP, budget], chosen[other, budget]))
        for name, head_tap, head_other in pairs:
            cell = {
                "budget": budget,
                "head": name,
                "head_tap": head_tap,
                "other": other,
                "head_other": head_other,
            }
            rows += _paired_rows(results[results["budget"] == budget], cell)
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    return ordered(table)


def _paired_rows(results: pd.DataFrame, cell: dict[str, Any]) -> list[dict[str, Any]]:
    tap = results[(results["init"] == Init.TAP) & (results["head"] == cell["head_tap"])]
    other = results[(results["init"] == cell["other"]) & (results["head"] == cell["head_other"])]
    both = tap.merge(other, on="seed", suffixes=("_a", "_b"))
    rows = []
    for metric in COMPARED if len(both) else []:
        a, b = (both[f"{metric}{side}"].to_numpy(float) for side in ("_a", "_b"))
        difference, low, high = paired_interval(a, b)
        row = cell | {"budget_unit": both["budget_unit_a"].iloc[0], "metric": metric, "n_seeds": len(both)}
        for side, values in (("tap", a), ("other", b)):
            mean, _, bottom, top = interval(values)
            row |= {f"mean_{side}": mean, f"low_{side}": bottom, f"high_{side}": top}
        rows.append(row | {"difference": difference, "low": low, "high": high})
    return rows


def write_tables(folder: Path, results: pd.DataFrame, trials: pd.DataFrame) -> list[Path]:
    """Writes results.csv and trials.csv into folder.

    results: one row per final run with the columns RESULT_COLUMNS (absent ones stay empty), `bias` a sequence
    with one entry per class, written as those of the event classes with ';' between. trials: init, head,
    budget, trial, val_ap, status and one column per hyperparameter, which follow the others by name.
    """
    final = ordered(results.reindex(columns=RESULT_COLUMNS))
    final["bias"] = [";".join(f"{b:.6g}" for b in bias[1:]) for bias in final["bias"]]
    first = [*CELL, "trial", "status", "val_ap"]
    searched = trials.reindex(columns=[*first, *sorted(set(trials.columns) - {*first, *BOOKKEEPING})])
    tables = {"results": final, "trials": ordered(searched)}
    return [write_csv(table, folder / f"{name}.csv") for name, table in tables.items()]


def short(row: pd.Series) -> tuple[str, ...]:
    """AP of a row of summary.csv with its interval over seeds and test set; F1, ECE before and after."""
    means = [row[f"{metric}_mean"] for metric in ("ap", "f1", "ece_before", "ece_after")]
    ap, *others = ("-" if np.isnan(mean) else f"{mean:.3f}" for mean in means)
    low, high = row["ap_test_low"], row["ap_test_high"]
    return ap if np.isnan(low) else f"{ap} [{low:.2f}, {high:.2f}]", *others


def test_set(row: pd.Series) -> str:
    """Size and prevalence of the test set of a summary row in words."""
    crops, events = f"{row['n_test']:.0f} crops", f"{row['n_events_test']:.0f} events"
    return f"{crops}, {row['prevalence']:.1%} positive, of {events}"


def arrow_accuracy(table: pd.DataFrame) -> float:
    """Held-out arrow accuracy of the pretrained arms in results or summary; NaN without any."""
    pretrained = table["init"].isin([init for init in Init if init.pretrained])
    known = table.loc[pretrained, "arrow_accuracy"].dropna()
    return float(known.iloc[0]) if len(known) else float("nan")


def result_table(summary: pd.DataFrame) -> Table:
    """The label-budget table at the end of a job, 80 columns wide; the best AP of each budget is bold."""
    first = summary.iloc[0]
    leaky = " [bold red]LEAKY[/]" if summary["leaky"].any() else ""
    table = Table(
        title=f"Events found on the held-out test set, split by {first['split']}{leaky}",
        caption=f"Means over {first['n_seeds']} seeds; in brackets 95 % over seeds and test set. "
        f"Test: {test_set(first)}. "
        f"Arrow accuracy {arrow_accuracy(summary):.3f} (chance 0.5).",
        box=None,
        collapse_padding=True,
        pad_edge=False,
        header_style="underline",
    )
    for name in ("init", "head"):
        table.add_column(name, no_wrap=True)
    for name in (str(first["budget_unit"]), "AP", "F1", "ECE before", "ECE after"):
        table.add_column(name, justify="right", no_wrap=True)
    best = summary.groupby("budget")["ap_mean"].max()
    for budget, rows in summary.sort_values("budget", kind="stable").groupby("budget"):
        for _, row in rows.iterrows():
            ap, *others = short(row)
            bold = f"[bold]{escape(ap)}[/]" if row["ap_mean"] == best[budget] else escape(ap)
            table.add_row(row["init"], row["head"], str(budget), bold, *others)
        if budget != summary["budget"].max():
            table.add_row()
    return table
