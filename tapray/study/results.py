"""The records that trials and runs leave behind, and their collection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import Init

if TYPE_CHECKING:  # the report draws figures, which no trial's worker needs to load
    from tapray.report.reliability import Prediction


_BY_SEED = ("logits", "val_logits")


@dataclass(frozen=True)
class Results:
    """Final runs, one row each; search trials; and what each run said about the test crops."""

    results: pd.DataFrame
    trials: pd.DataFrame
    predictions: dict[tuple[str, str, int, int], Prediction]


def collect(folder: Path, pretrained: Sequence[Mapping[str, Any]], *, leaky: bool) -> Results:
    """Reads a study folder; final runs that failed are left out.

    Args:
        pretrained: the facts of each pretraining; arrow accuracies belong to the pretrained arms alone.
    """
    runs = [run for run in read_records(folder, "run") if run["status"] == "done"]
    saved = {work: _arrays(folder / f"{work}.npz") for work in {run["work"] for run in runs}}
    predictions: dict[tuple[str, str, int, int], Any] = {}  # each a Prediction
    for run in runs:
        arrays = saved[run["work"]]
        predictions[run["init"], run["head"], run["budget"], run["seed"]] = {
            **{name: arrays[name] for name in ("labels", "groups", "blocks", "val_labels")},
            **{name: arrays[name][arrays["seeds"].tolist().index(run["seed"])] for name in _BY_SEED},
            **{name: run[name] for name in ("temperature", "bias", "threshold", "encoder")},
        }
        has_arrow = Init(run["init"]).pretrained
        run["arrow_accuracy"] = pretrained[run["encoder"]]["arrow_accuracy"] if has_arrow else float("nan")
        run["leaky"] = leaky
    return Results(pd.DataFrame(runs), pd.DataFrame(read_records(folder, "trial")), predictions)


def best_run(results: pd.DataFrame) -> dict[str, Any]:
    """The run that is best on validation, at the largest budget, among those that can be kept as a model.

    The cell is chosen by its mean validation average precision over seeds, then the seed.
    """
    models = results.init.map(lambda init: Init(init).is_tap)
    runs = results[(results.budget == results.budget.max()) & models]
    init, head = runs.groupby(["init", "head"]).val_ap.mean().idxmax()
    own = runs[(runs.init == init) & (runs["head"] == head)]
    best: dict[str, Any] = own.loc[own.val_ap.idxmax()].to_dict()
    return best


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as saved:
        return dict(saved)


Kind = Literal["trial", "run"]  # search trials and final runs


def read_records(folder: Path, kind: Kind) -> list[dict[str, Any]]:
    """The records of search trials or final runs, in the order in which a cell's trials or seeds count.

    `work` of each is the stem of the files that it shares with those it was trained with. One that two
    workers have left, of which one was taken for dead, counts once.
    """
    number = "trial" if kind == "trial" else "seed"
    records = [
        {**record, "work": path.stem}
        for path in folder.glob(f"{kind}s-*.json")
        for record in json.loads(path.read_text())
    ]
    once = {(record["init"], record["head"], record["budget"], record[number]): record for record in records}
    return [once[key] for key in sorted(once)]


def kind_of(work: Sequence[Mapping[str, Any]]) -> Kind:
    """Whether a work is of search trials or of final runs."""
    return "trial" if "trial" in work[0] else "run"


def parted(kind: Kind, work: list[dict[str, Any]], lost: Set[str]) -> Iterator[list[dict[str, Any]]]:
    """A work, or each of its trials or runs by itself if one of them is named in `lost`."""
    if any(work_name(kind, each) in lost for each in work):
        yield from ([each] for each in work)
    elif work:
        yield work


def work_name(kind: Kind, first: Mapping[str, Any]) -> str:
    """Stem of the files of the work that begins with that trial or run."""
    number = first["trial" if kind == "trial" else "seed"]
    return f"{kind}s-{first['init']}-{first['head']}-{first['budget']}-{number}"
