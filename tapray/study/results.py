"""Collects the records that runs left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tapray.config import Init
from tapray.report.figures import Prediction


@dataclass(frozen=True)
class Results:
    """Final runs, one row each; search trials; and what each run said about the test crops."""

    results: pd.DataFrame
    trials: pd.DataFrame
    predictions: dict[tuple[str, str, int, int], Prediction]


def collect(folder: Path, pretrained: Mapping[str, Any], *, leaky: bool) -> Results:
    """Reads a study folder.

    Args:
        pretrained: facts of pretraining; its arrow accuracy belongs to the pretrained arms alone.
    """
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("run-*.json"))]
    trials = [json.loads(path.read_text()) for path in sorted(folder.glob("trial-*.json"))]
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
    return Results(pd.DataFrame(runs), pd.DataFrame(trials), predictions)


def run_name(run: Mapping[str, Any]) -> str:
    """Stem of the files of a final run."""
    return f"run-{run['init']}-{run['head']}-{run['budget']}-{run['seed']}"
