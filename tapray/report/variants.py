"""Tables over the variants of a study: what was published of each setting, and what a leak adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.stats import ttest_ind

from tapray.atomic import atomic_write
from tapray.report import further
from tapray.report.tables import BY_CLASS, ordered, write_csv
from tapray.study.statistics import interval

LIKELIEST = [f"{name}_argmax" for name in BY_CLASS]
VARIANT = "variant"  # a column where the settings do not tell variants apart
SETTING = ["split", "crop_size", "area_threshold", "head", "budget", "init"]
DECISION = "decision"  # argmax: the likeliest class, as published; threshold: the one chosen on validation
INFLATED = ["ap", "f1", "mcc"]
PREVALENCES = ("prevalence_leaky", "prevalence_leak_free")


def write_comparison(folders: Sequence[Path]) -> Path:
    """Writes published.csv, .md and .tex, and of several folders inflation.csv, into `tables_folder`."""
    target = tables_folder(folders)
    table = published_table(folders)
    write_csv(table, target / "published.csv")
    atomic_write(target / "published.md", to_markdown(table))
    atomic_write(target / "published.tex", to_latex(table))
    if len(folders) > 1:
        write_csv(inflation_table(folders), target / "inflation.csv")
    return target


def tables_folder(folders: Sequence[Path]) -> Path:
    """Beside the run folders, or in the only one."""
    return (folders[0].parent if len(folders) > 1 else folders[0]) / "tables"


def _results(folders: Sequence[Path]) -> pd.DataFrame:
    """The final runs of all run folders, with what sets the folders apart."""
    parts = []
    for folder in folders:
        crops = yaml.safe_load((folder / "config.yaml").read_text())["crops"]
        facts = {VARIANT: folder.name, "crop_size": crops["size"], "area_threshold": crops["area_threshold"]}
        parts.append(pd.read_csv(folder / "report" / "results.csv").assign(**facts))
    return ordered(pd.concat(parts, ignore_index=True))


def published_table(folders: Sequence[Path]) -> pd.DataFrame:
    """Precision and recall of each class, mean and standard deviation over seeds, by setting.

    Columns: `SETTING`, after `VARIANT` where these do not tell variants apart, `DECISION`, leaky, n_seeds
    and, for each score there is, its _mean and _std (arXiv 2411.03924, tables 1 and 2).
    """
    results = _results(folders)
    results = results.reindex(columns=[*results, *(name for name in LIKELIEST if name not in results)])
    alike = results.groupby(SETTING)[VARIANT].nunique().max() > 1
    keys = [*([VARIANT] if alike else []), *SETTING, DECISION]
    likeliest = results.assign(**{name: results[f"{name}_argmax"] for name in BY_CLASS})
    likeliest = likeliest[likeliest["recall_0"].notna()]  # runs of before have none
    both = {"argmax": likeliest, "threshold": results}
    results = pd.concat([runs.assign(**{DECISION: name}) for name, runs in both.items()])
    scores = [name for name in BY_CLASS if results[name].notna().any()]
    rows = []
    for setting, runs in results.groupby(keys, sort=False):
        row = {
            **dict(zip(keys, setting, strict=True)),
            "leaky": bool(runs["leaky"].any()),
            "n_seeds": len(runs),
        }
        for name in scores:
            mean, std, _, _ = interval(runs[name].to_numpy(float))
            row |= {f"{name}_mean": mean, f"{name}_std": std}
        rows.append(row)
    return pd.DataFrame(rows)


def _shown(table: pd.DataFrame, between: str) -> pd.DataFrame:
    """The table as text, a mean and its standard deviation in one cell."""
    scores = [str(name).removesuffix("_mean") for name in table if str(name).endswith("_mean")]
    shown = table[[name for name in (VARIANT, *SETTING, DECISION, "n_seeds") if name in table]].astype(str)
    shown["split"] += np.where(table["leaky"], " (leaky)", "")
    for name in scores:
        pairs = zip(table[f"{name}_mean"], table[f"{name}_std"], strict=True)
        shown[name] = [f"{mean:.3f}{between}{std:.3f}" for mean, std in pairs]
    return shown


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table, mean ± standard deviation."""
    shown = _shown(table, " ± ")
    return further.table([str(name) for name in shown], shown.to_numpy().tolist()) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """A LaTeX tabular, mean and standard deviation with a plus-minus sign between."""
    shown = _shown(table, "@")
    rows = [[cell.replace("_", "\\_").replace("@", r" $\pm$ ") for cell in row] for row in shown.to_numpy()]
    head = [str(name).replace("_", "\\_") for name in shown]
    lines = [" & ".join(row) + r" \\" for row in (head, *rows)]
    body = "\n".join([lines[0], r"\hline", *lines[1:]])
    words = head.index("n\\_seeds")
    return f"\\begin{{tabular}}{{{'l' * words}{'r' * (len(head) - words)}}}\n{body}\n\\end{{tabular}}\n"


def inflation_table(folders: Sequence[Path]) -> pd.DataFrame:
    """What a leaky split adds: its mean score minus that of the split without a leak, by setting and metric.

    Columns: the setting without split, metric, leaky, leak_free (means over seeds), inflation, low and high
    (95 %, Welch: the splits share no crops, so their seeds are not pairs), then the share of events among the
    test crops of either: what chance reaches differs where that does. A setting of which there are
    several variants of either kind has no row: which belong together is not known.
    """
    results = _results(folders)
    rows = []
    for setting, runs in results.groupby(SETTING[1:], sort=False):
        sides = [runs[runs["leaky"] == leaky] for leaky in (True, False)]
        pair = all(len(side) > 1 and side[VARIANT].nunique() == 1 for side in sides)
        for metric in INFLATED if pair else ():
            leaky, free = (side[metric].to_numpy(float) for side in sides)
            test = ttest_ind(leaky, free, equal_var=False).confidence_interval(0.95)
            means = {"leaky": leaky.mean(), "leak_free": free.mean(), "inflation": leaky.mean() - free.mean()}
            cell = dict(zip(SETTING[1:], setting, strict=True))
            shares = dict(zip(PREVALENCES, (side["prevalence"].mean() for side in sides), strict=True))
            rows.append({**cell, "metric": metric, **means, "low": test.low, "high": test.high, **shares})
    columns = [*SETTING[1:], "metric", "leaky", "leak_free", "inflation", "low", "high", *PREVALENCES]
    return pd.DataFrame(rows, columns=columns)
