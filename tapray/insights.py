"""The stages that look into a study's results: calibration, errors, attribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.context import Job
from tapray.report.reliability import Prediction, calibration_of
from tapray.report.tables import write_csv
from tapray.study.metrics import event_probability
from tapray.study.results import best_run
from tapray.study.statistics import enough_fields

CONTEXT = 2  # crops: side of the window that shows a mistake


def calibrate(job: Job) -> dict[str, Any]:
    """Every way to calibrate, fitted on validation and judged on test, and reliability diagrams."""
    from tapray.report.calibration import calibration_table
    from tapray.report.figures import reliability_diagrams

    target, rng = job.folder.stage("calibrate"), np.random.default_rng(0)
    table = calibration_table(job.results.predictions, rng)
    paths = [write_csv(table, target / "calibration.csv")]
    init = str(best_run(job.results.results)["init"])  # of which a model is made
    paths += reliability_diagrams(job.results.predictions, init, target / "reliability.png", rng)
    ece = table[(table["metric"] == "ece") & (table["method"] == "temperature_bias")]
    fallen = int((ece["change"] < 0).sum())
    job.reporter.say(f"calibration: the mean ECE on test falls in {fallen} of {len(ece)} cells")
    return log(job, "calibrate", paths)


def errors(job: Job) -> dict[str, Any]:
    """Where each head of the best arm errs, at the largest budget, and the model's worst mistakes."""
    from tapray.insight.errors import covered, error_table
    from tapray.insight.mistakes import mistakes
    from tapray.report import errors as pictures
    from tapray.study.store import FeatureStore

    target, inputs, size = job.folder.stage("errors"), job.inputs, job.config.crops.size
    index = FeatureStore(job.features).index()
    test = index[index["split"] == "test"].reset_index(drop=True)
    cells = {entry.name: inputs.foreground(entry) for entry in inputs.entries}
    facts = surroundings(job, test).drop(columns="since")
    facts["share that is cells"] = covered(test, lambda movie, t: cells[movie](t), size)
    best, tables, paths = best_run(job.results.results), [], []
    heads = dict.fromkeys(key[1] for key in job.results.predictions if _same(key, best))
    for head in heads:
        runs = [run for key, run in job.results.predictions.items() if _same(key, best) and key[1] == head]
        predicted = np.stack([_event(run) >= run["threshold"] for run in runs])
        truth, blocks = runs[0]["labels"] > 0, runs[0]["blocks"]
        units = (blocks, blocks if enough_fields(test["field"].to_numpy()) else runs[0]["groups"])
        table = error_table(facts, truth, predicted, *units, size, np.random.default_rng(0))
        tables.append(table.assign(init=best["init"], head=head, budget=best["budget"]))
        paths += pictures.over_time(table, head, target / f"over_time_{head}.png")
        paths += pictures.by_surroundings(table, head, target / f"surroundings_{head}.png")
    paths.append(write_csv(pd.concat(tables), target / "errors.csv"))
    run = job.results.predictions[best["init"], best["head"], best["budget"], best["seed"]]
    known = pd.concat([own.table.assign(movie=name) for name, own in inputs.places.items()])
    known = known.loc[known["kind"] == "event", ["movie", "event_id", "t", "y", "x", "t_end", "radius"]]
    wrong = mistakes(test, _event(run), run["threshold"], size, job.config.crops.classes, known)
    paths.append(write_csv(wrong, target / "mistakes.csv"))
    paths.append(_gallery(job, wrong, target / "mistakes.png"))
    return log(job, "errors", paths)


def surroundings(job: Job, crops: pd.DataFrame) -> pd.DataFrame:
    """`tapray.insight.errors.crop_facts` of labelled crops."""
    from tapray.insight.errors import crop_facts

    places, movies = job.inputs.places, job.inputs.movies
    events = {name: own.table[own.table["kind"] == "event"] for name, own in places.items()}
    return crop_facts(crops, events, {name: m.shape for name, m in movies.items()}, job.config.crops.size)


def _same(key: tuple[str, str, int, int], best: dict[str, Any]) -> bool:
    return (key[0], key[2]) == (best["init"], best["budget"])


def _event(run: Prediction) -> NDArray[np.float64]:
    """(N,) calibrated probability of an event."""
    fitted = calibration_of(run)
    return event_probability(fitted.apply(run["logits"]))


def _gallery(job: Job, wrong: pd.DataFrame, path: Path) -> Path:
    """Windows of both frames around each mistake, with masks where there are any, and attribution."""
    from tapray.crops.normalise import frame_ranges, normalise
    from tapray.insight.explain import grey, window
    from tapray.model.attribution import attribution
    from tapray.model.weights import load_tap
    from tapray.report.errors import gallery

    intensity, side = job.config.crops.intensity, CONTEXT * job.config.crops.size
    net, pairs, seen, outlines = load_tap(job.model), [], [], []
    marks = {entry.name: job.inputs.outlines(entry) for entry in job.inputs.entries}
    half, shown = job.config.crops.size // 2, wrong[["movie", "first", "last", "top", "left"]]
    for name, t, t_end, top, left in shown.itertuples(index=False, name=None):
        y, x = top + half, left + half
        movie = job.inputs.movies[name]
        own = min(side, *movie.shape[1:]) // net.backbone.divisor * net.backbone.divisor
        raw = np.concatenate([movie.read(at, at + 1) for at in (t, t_end)])
        frames = window(normalise(raw, frame_ranges(raw, intensity), intensity), y, x, own)
        seen.append(attribution(net, frames[None])[0])
        pairs.append(grey(frames))
        outlines.append(np.stack([window(marks[name](at), y, x, own) for at in (t, t_end)]))
    return gallery(wrong, pairs, outlines, seen, path)


def log(job: Job, name: str, paths: list[Path]) -> dict[str, Any]:
    """Keeps a stage's files in MLflow too; returns its facts."""
    for path in paths:
        job.tracker.artifact(job.run_id, path, name)
    return {"files": [path.name for path in paths]}
