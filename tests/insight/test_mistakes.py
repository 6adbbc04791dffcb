"""The gallery shows each mistake once, the most confident first, and can be read as an event table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tapray.config import Annotation
from tapray.data.movies import open_movie
from tapray.data.tables import read_event_table
from tapray.insight.mistakes import MISTAKE_COLUMNS, MOST, mistakes


def made(n: int = 200) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    crops = pd.DataFrame(
        {
            "movie": "m",
            "t": rng.integers(0, 9, n),
            "delta": 1,
            "y": rng.integers(0, 40, n),
            "x": rng.integers(0, 40, n),
            "label": rng.random(n) < 0.2,
            "group": np.arange(n) // 2,
        }
    ).astype({"label": int})
    crops["event_id"] = np.where(crops["label"] > 0, crops["group"], -1)
    return crops, rng.random(n)


def two(event: np.ndarray) -> np.ndarray:
    """(N, 2) probabilities of none and event."""
    return np.stack([1 - event, event], axis=1)


NOTHING = pd.DataFrame({name: pd.Series(dtype=float) for name in ("t", "y", "x", "t_end", "radius")}).assign(
    movie=pd.Series(dtype=str), event_id=pd.Series(dtype=int)
)


def test_the_most_confident_come_first_and_no_group_twice() -> None:
    crops, event = made()
    table = mistakes(crops, two(event), 0.6, 16, NOTHING)
    assert list(table.columns) == MISTAKE_COLUMNS
    wrong = table.groupby("mistake")
    assert wrong.size().to_dict() == {"false positive": MOST, "false negative": MOST}
    positives = table[table["mistake"] == "false positive"]
    assert positives["probability"].is_monotonic_decreasing
    assert positives["probability"].iloc[0] == event[crops["label"] == 0].max()
    assert set(positives["class"]) == {"none"}
    missed = table[table["mistake"] == "false negative"]
    assert missed["probability"].is_monotonic_increasing
    assert missed["probability"].iloc[0] == event[crops["label"] == 1].min()
    assert set(missed["class"]) == {"event"}
    assert set(positives["called"]) == {"event"}
    assert set(missed["called"]) == {"none"}
    for _, row in table.iterrows():
        own = crops[(crops["t"] == row["t"]) & (crops["y"] == row["top"]) & (crops["x"] == row["left"])]
        assert len(own) >= 1
        assert row["y"] == row["top"] + 8


def test_a_missed_event_is_named_by_its_own_place() -> None:
    """Where a correction must lie, to take the place of what was annotated."""
    crops, event = made()
    missed = crops[crops["label"] == 1].iloc[event[crops["label"] == 1].argmin()]
    place = {"t": 2.0, "y": 7.5, "x": 31.25, "t_end": 6.0, "radius": 9.0}
    known = pd.DataFrame([{"movie": "m", "event_id": missed["event_id"], **place}])
    row = mistakes(crops, two(event), 0.6, 16, known).query("mistake == 'false negative'").iloc[0]
    assert {name: row[name] for name in place} == place
    assert (row["first"], row["last"]) == (missed["t"], missed["t"] + 1)
    assert (row["top"], row["left"]) == (missed["y"], missed["x"])


def test_an_event_that_is_called_another_kind_is_a_mistake_too() -> None:
    crops, _ = made(60)
    crops["label"] = np.arange(60) % 3
    crops["group"] = np.arange(60)
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(3), 60)
    table = mistakes(crops, probabilities, 0.5, 16, NOTHING)
    kinds = table[table["mistake"] == "wrong kind"]
    event, kind = probabilities[:, 1:].sum(axis=1), 1 + probabilities[:, 1:].argmax(axis=1)
    wrong = (event >= 0.5) & (crops["label"] > 0) & (kind != crops["label"])
    assert len(kinds) == min(MOST, wrong.sum()) > 2
    assert kinds["probability"].iloc[0] == probabilities[wrong, kind[wrong]].max()
    assert kinds["probability"].is_monotonic_decreasing
    assert {tuple(pair) for pair in kinds[["class", "called"]].to_numpy()} == {
        ("division", "death"),
        ("death", "division"),
    }
    others = table[table["mistake"] != "wrong kind"]
    assert ((others["class"] == "none") != (others["called"] == "none")).all()


def test_without_mistakes_the_table_is_empty() -> None:
    crops, _ = made()
    table = mistakes(crops, two(crops["label"].to_numpy(float)), 0.5, 16, NOTHING)
    assert table.empty
    assert list(table.columns) == MISTAKE_COLUMNS


def test_what_is_confirmed_counts_as_annotation(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((10, 60, 60), np.uint8))
    movie = open_movie(tmp_path / "m.npy", "m")
    crops, event = made()
    table = mistakes(crops, two(event), 0.6, 16, NOTHING)
    table.loc[0, ["class", "quality"]] = ["division", "certain"]
    table.to_csv(tmp_path / "events.csv", index=False)
    annotation = Annotation.model_validate({"kind": "event_table", "path": tmp_path / "events.csv"})
    places = read_event_table(annotation, "m", movie)
    assert (places["kind"] == "event").sum() == 1
    assert (places["kind"] == "unknown").sum() == len(table) - 1
