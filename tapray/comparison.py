"""What MLflow's experiment page shows of studies: which runs, columns and charts, in what order.

MLflow keeps such a view as a tag of the experiment and opens it by its name (a "shared view", as its Share
button makes them). This module imports no mlflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

NAME = "tapray"
TAG = f"mlflow.sharedViewState.{NAME}"
# parameters that runs are grouped by: one row for each cell, over seeds
_FACTORS = ("study", "split", "init", "head", "budget")
_NAME = "attributes.`Run Name`"  # a column
_METRICS = ("ap", "f1", "precision_1", "recall_1", "ece_after", "ece_before")
_BARS = ("ap", "f1", "ece_after")
_LONGEST = 20_000  # characters of an experiment's tag that MLflow keeps


def view(cells: Iterable[Mapping[Any, Any]] = (), before: str = "") -> str:
    """The view as MLflow keeps it, JSON: final runs grouped by study and cell, their means, and charts.

    Args:
        cells: study, split, init, head and budget of those whose runs are folded away, so that means stand
            together.
        before: a view of which the folded cells stay so, the oldest of them as far as there is room.
    """
    folded = json.loads(before)["groupsExpanded"] if before else {}
    folded |= {",".join(f"param.{name}.{cell[name]}" for name in _FACTORS): False for cell in cells}
    while len(text := _state(folded)) > _LONGEST:
        del folded[next(iter(folded))]
    return text


def _state(folded: Mapping[str, bool]) -> str:
    charts = [_chart("BAR", name, metricKey=name) for name in _BARS]
    axes = {"xaxis": {"key": "ap", "type": "METRIC"}, "yaxis": {"key": "ece_after", "type": "METRIC"}}
    charts.append(_chart("SCATTER", "ap-ece", **axes))
    columns = [f"$$$metric$$$-{name}" for name in _METRICS]
    state = {
        "searchFilter": "tags.kind = 'run'",
        "orderByKey": "metrics.`ap`",
        "orderByAsc": False,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": name} for name in _FACTORS],
        },
        "groupsExpanded": folded,
        "selectedColumns": [f"metrics.`{name}`" for name in _METRICS],
        "columnOrder": [_NAME, *columns],
        "columnWidths": {_NAME: 480, **dict.fromkeys(columns, 105)},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": NAME, "name": "Study", "display": True, "isReordered": True}],
        "isAccordionReordered": True,
    }
    return json.dumps(state, separators=(",", ":"))


def page(address: str, experiment_id: str | None) -> str:
    """Where the view opens, on a server at that address; of no experiment, the list of all."""
    if experiment_id is None:
        return f"{address}/#/experiments"
    return f"{address}/#/experiments/{experiment_id}/runs?viewStateShareKey={NAME}"


def _chart(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    place = {"uuid": f"{NAME}-{name}", "metricSectionId": NAME, "deleted": False, "isGenerated": False}
    return {"type": kind, **place, "runsCountToCompare": 100, **settings}
