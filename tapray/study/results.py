"""The records that trials and runs leave behind, and their collection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from tapray.config import Init

if TYPE_CHECKING:  # the report draws figures, which no trial's worker needs to load
    from tapray.report.reliability import Prediction


@dataclass(frozen=True)
class Results:
    """Final runs, one row each; search trials; and what each run said about the test crops."""

    results: pd.DataFrame
    trials: pd.DataFrame
    predictions: dict[tuple[str, str, int, int], Prediction]


def collect(folder: Path, pretrained: Mapping[str, Any], *, leaky: bool) -> Results:
    """Reads a study folder; final runs that failed are left out.

    Args:
        pretrained: facts of pretraining; its arrow accuracy belongs to the pretrained arms alone.
    """
    runs = [run for run in read_records(folder, "run") if run["status"] == "done"]
    predictions: dict[tuple[str, str, int, int], Prediction] = {}
    for run in runs:
        with np.load(folder / f"{run_name(run)}.npz", allow_pickle=False) as saved:
            predictions[run["init"], run["head"], run["budget"], run["seed"]] = {
                "labels": saved["labels"],
                "logits": saved["logits"],
                "groups": saved["groups"],
                "temperature": run["calibration"]["temperature"],
                "bias": run["calibration"]["bias"],
            }
        has_arrow = run["init"] in (Init.TAP, Init.FINE_TUNE)
        run["arrow_accuracy"] = pretrained["arrow_accuracy"] if has_arrow else float("nan")
        run["leaky"] = leaky
    return Results(pd.DataFrame(runs), pd.DataFrame(read_records(folder, "trial")), predictions)


def best_run(results: pd.DataFrame) -> dict[str, Any]:
    """The run that is best on validation, at the largest budget.

    The cell is chosen by its mean validation average precision over seeds, then the seed.
    """
    runs = results[results.budget == results.budget.max()]
    init, head = runs.groupby(["init", "head"]).val_ap.mean().idxmax()
    own = runs[(runs.init == init) & (runs["head"] == head)]
    best: dict[str, Any] = own.loc[own.val_ap.idxmax()].to_dict()
    return best


def read_records(folder: Path, kind: Literal["trial", "run"]) -> list[dict[str, Any]]:
    """The records of search trials or final runs, in the order in which a cell's trials or seeds count."""
    number = "trial" if kind == "trial" else "seed"
    records = [json.loads(path.read_text()) for path in folder.glob(f"{kind}-*.json")]
    return sorted(
        records, key=lambda record: (record["init"], record["head"], record["budget"], record[number])
    )


def run_name(run: Mapping[str, Any]) -> str:
    """Stem of the files of a final run."""
    return f"run-{run['init']}-{run['head']}-{run['budget']}-{run['seed']}"


def trial_name(run: Mapping[str, Any]) -> str:
    """Stem of the file of a search trial."""
    return f"trial-{run['init']}-{run['head']}-{run['budget']}-{run['trial']}"
