"""Tables over the variants of a study: what was published of each setting, and how variants differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tapray.atomic import atomic_write
from tapray.report import further
from tapray.report.across import LIKE, inflation_table, variant_differences
from tapray.report.tables import BY_CLASS, ordered, write_csv
from tapray.study.results import Results
from tapray.study.statistics import interval

LIKELIEST = [f"{name}_argmax" for name in BY_CLASS]
VARIANT = "variant"  # a column where the settings do not tell variants apart
SETTING = ["split", *LIKE, "head", "budget", "init"]
DECISION = "decision"  # argmax: the likeliest class, as published; threshold: the one chosen on validation


def write_comparison(folders: Sequence[Path], found: Sequence[Results]) -> Path:
    """Writes published.csv, .md and .tex, and of several run folders differences.csv and inflation.csv, into
    `tables_folder`.

    Args:
        found: what each study found, where there are several folders.
    """
    target = tables_folder(folders)
    table = published_table(folders)
    write_csv(table, target / "published.csv")
    atomic_write(target / "published.md", to_markdown(table))
    atomic_write(target / "published.tex", to_latex(table))
    if len(folders) > 1:
        names = [folder.name for folder in folders]
        differences = variant_differences(dict(zip(names, found, strict=True)), np.random.default_rng(0))
        facts = _settings(folders).assign(
            is_leaky=[bool(own.results["leaky"].any()) for own in found],
            prevalence=[own.results["prevalence"].mean() for own in found],
        )
        write_csv(differences, target / "differences.csv")
        write_csv(inflation_table(differences, facts), target / "inflation.csv")
    return target


def tables_folder(folders: Sequence[Path]) -> Path:
    """Beside the run folders, or in the only one."""
    return (folders[0].parent if len(folders) > 1 else folders[0]) / "tables"


def _settings(folders: Sequence[Path]) -> pd.DataFrame:
    """What sets run folders apart, one row each: VARIANT, crop_size, area_threshold."""
    crops = [yaml.safe_load((folder / "config.yaml").read_text())["crops"] for folder in folders]
    rows = [
        (folder.name, own["size"], own["area_threshold"]) for folder, own in zip(folders, crops, strict=True)
    ]
    return pd.DataFrame(rows, columns=[VARIANT, *LIKE])


def _results(folders: Sequence[Path]) -> pd.DataFrame:
    """The final runs of all run folders, with what sets the folders apart."""
    settings: list[dict[str, Any]] = _settings(folders).to_dict("records")  # type: ignore[assignment]
    parts = [
        pd.read_csv(folder / "report" / "results.csv").assign(**facts)
        for folder, facts in zip(folders, settings, strict=True)
    ]
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
