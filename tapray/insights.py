"""The stages that look into a study's results: calibration, errors, attribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import Init
from tapray.context import Job
from tapray.report.reliability import Prediction, calibration_of
from tapray.report.tables import write_csv
from tapray.study.metrics import event_probability
from tapray.study.results import best_run
from tapray.study.statistics import enough_fields

if TYPE_CHECKING:  # figures and nets, which a job loads where it needs them
    from tapray.model.tap import TapNet
    from tapray.report.errors import Close

CONTEXT = 2  # crops: side of the window that shows a mistake, where the frame is as large


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
    fallen = int((ece["change_high"] < 0).sum())
    job.reporter.say(f"calibration: the ECE on test falls in {fallen} of {len(ece)} cells")
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
    fields = enough_fields(test["field"].to_numpy())
    drawn = "seeds and fields of view" if fields else "seeds and blocks of time"
    drawn_by_frame = drawn if fields else "seeds, events and places"
    heads = dict.fromkeys(key[1] for key in job.results.predictions if _same(key, best))
    for head in heads:
        runs = [run for key, run in job.results.predictions.items() if _same(key, best) and key[1] == head]
        predicted = np.stack([event_probability(_calibrated(run)) >= run["threshold"] for run in runs])
        truth, blocks = runs[0]["labels"] > 0, runs[0]["blocks"]
        units = (blocks, blocks if fields else runs[0]["groups"])
        table = error_table(facts, truth, predicted, *units, size, np.random.default_rng(0))
        tables.append(table.assign(init=best["init"], head=head, budget=best["budget"]))
        paths += pictures.over_time(table, head, drawn_by_frame, target / f"over_time_{head}.png")
        paths += pictures.by_surroundings(table, head, drawn, target / f"surroundings_{head}.png")
    paths.append(write_csv(pd.concat(tables), target / "errors.csv"))
    run = job.results.predictions[best["init"], best["head"], best["budget"], best["seed"]]
    known = pd.concat([own.table.assign(movie=name) for name, own in inputs.places.items()])
    known = known.loc[known["kind"] == "event", ["movie", "event_id", "t", "y", "x", "t_end", "radius"]]
    wrong = mistakes(test, _calibrated(run), run["threshold"], size, known)
    paths.append(write_csv(wrong, target / "mistakes.csv"))
    paths.append(_gallery(job, wrong, known, best, target / "mistakes.png"))
    return log(job, "errors", paths)


def surroundings(job: Job, crops: pd.DataFrame) -> pd.DataFrame:
    """`tapray.insight.errors.crop_facts` of labelled crops."""
    from tapray.insight.errors import crop_facts

    places, movies = job.inputs.places, job.inputs.movies
    events = {name: own.table[own.table["kind"] == "event"] for name, own in places.items()}
    return crop_facts(crops, events, {name: m.shape for name, m in movies.items()}, job.config.crops.size)


def _same(key: tuple[str, str, int, int], best: dict[str, Any]) -> bool:
    return (key[0], key[2]) == (best["init"], best["budget"])


def _calibrated(run: Prediction) -> NDArray[np.float64]:
    """(N, K) probabilities."""
    return calibration_of(run).apply(run["logits"])


def _gallery(job: Job, wrong: pd.DataFrame, known: pd.DataFrame, best: dict[str, Any], path: Path) -> Path:
    """Windows of both frames around each mistake, with masks where there are any, and attribution."""
    from tapray.model.encoders import repeat_folder
    from tapray.model.weights import load_tap
    from tapray.report.errors import gallery

    own = Init(best["init"]).pretrained
    net = load_tap(repeat_folder(job.model, int(best["encoder"]) if own else 0))
    marks = {entry.name: job.inputs.outlines(entry) for entry in job.inputs.entries}
    views = [
        _close(job, net, row, marks[row["movie"]], known[known["movie"] == row["movie"]])
        for _, row in wrong.iterrows()
    ]
    which = "pretrained net of the model's encoder" if own else "first pretrained net (not the model's)"
    return gallery(wrong, views, f"attribution: {which}", path)


def _close(
    job: Job, net: TapNet, row: pd.Series, masks: Callable[[int], NDArray[Any]], events: pd.DataFrame
) -> Close:
    """A mistake from close by; events: those of its movie."""
    from tapray.crops.normalise import frame_ranges, normalise
    from tapray.insight.detection import shown
    from tapray.insight.explain import corner, grey, window
    from tapray.model.attribution import attribution
    from tapray.report.errors import Close

    crops, movie = job.config.crops, job.inputs.movies[row["movie"]]
    y, x, times = row["top"] + crops.size // 2, row["left"] + crops.size // 2, (row["first"], row["last"])
    side = min(CONTEXT * crops.size, *movie.shape[1:])
    raw = np.concatenate([movie.read(t, t + 1) for t in times])
    frames = window(normalise(raw, frame_ranges(raw, crops.intensity), crops.intensity), y, x, side)
    top, left = corner(y, x, side, movie.shape[1:])
    here = shown(events, times[0], times[1] - times[0])
    seen = attribution(net, frames[None])
    return Close(
        frames=grey(frames),
        outlines=np.stack([window(masks(t), y, x, side) for t in times]),
        ways={"evidence": seen["evidence"][0], "Grad-CAM": seen["grad_cam"][0]},
        top=row["top"] - top,
        left=row["left"] - left,
        size=crops.size,
        events=here.assign(y=here["y"] - top, x=here["x"] - left),
    )


def log(job: Job, name: str, paths: list[Path]) -> dict[str, Any]:
    """Keeps a stage's files in MLflow too; returns its facts."""
    for path in paths:
        job.tracker.artifact(job.run_id, path, name)
    return {"files": [path.name for path in paths]}
