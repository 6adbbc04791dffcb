"""What pictures of errors and attribution show of known numbers: curves, titles, limits, marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from tapray.insight.errors import ERROR_COLUMNS
from tapray.report import errors, explain
from tapray.report.errors import Close
from tapray.report.explain import Insets

QUANTITIES = {
    **{"true_positive": 0.6, "false_positive": 0.2, "positive": 0.5},
    **{"true_negative": 0.5, "false_negative": 0.1, "negative": 0.4},
    **{"false_positive_rate": 0.02, "miss_rate": 0.8},
}
BINS = {"frame": ["0-4", "5-9"], "pixels to the border": ["0-11", "12 or more"], "kind": ["none", "event"]}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, as they are then."""
    kept: list[Figure] = []

    def keep(save: Callable[..., Any]) -> Callable[..., Any]:
        return lambda figure, *rest: (kept.append(figure), save(figure, *rest))[1]

    monkeypatch.setattr(errors, "save", keep(errors.save))
    monkeypatch.setattr(errors, "save_picture", keep(errors.save_picture))
    monkeypatch.setattr(explain, "save_picture", keep(explain.save_picture))
    return kept


def table() -> pd.DataFrame:
    """Each quantity rises from one bin to the next; no negative is of the kind event."""
    rows = [
        (dimension, name, quantity, 30.0, value, value / 2, 1.2 * value)
        for dimension, names in BINS.items()
        for quantity, first in QUANTITIES.items()
        for name, value in zip(names, (first, first + 0.1), strict=True)
    ]
    made = pd.DataFrame(rows, columns=ERROR_COLUMNS)
    none = (made["bin"] == "event") & (made["quantity"] == "false_positive_rate")
    return made.assign(crops=made["crops"].mask(none, 0.0))


def ticks(panel: Axes) -> list[str]:
    return [label.get_text() for label in panel.get_xticklabels()]


def test_errors_over_time_lie_beside_what_is_right_and_what_is_true(
    drawn: list[Figure], tmp_path: Path
) -> None:
    paths = errors.over_time(table(), "linear", "seeds, events and places", tmp_path / "a.png")
    assert [path.suffix for path in paths] == [".png", ".svg", ".csv"]
    (figure,) = drawn
    assert figure.get_suptitle() == "linear head: errors over time"
    assert "95 % over seeds, events and places" in figure.get_supxlabel()
    assert "too narrow with fewer than ten seeds" in figure.get_supxlabel()
    for panel, answer in zip(figure.axes, ("positive", "negative"), strict=True):
        wrong, right = panel.lines
        assert wrong.get_ydata() == pytest.approx([QUANTITIES[f"false_{answer}"] + d for d in (0, 0.1)])
        assert right.get_ydata() == pytest.approx([QUANTITIES[f"true_{answer}"] + d for d in (0, 0.1)])
        assert [bar.get_height() for bar in panel.patches] == pytest.approx(
            [QUANTITIES[answer] + d for d in (0, 0.1)]
        )
        assert panel.get_ylim()[0] == 0
        assert ticks(panel) == BINS["frame"]
        legend = panel.get_legend()
        assert legend is not None
        names = {text.get_text() for text in legend.get_texts()}
        assert names == {f"{kind}{answer}s (60.0 a seed)" for kind in ("false ", "true ", "")}


def test_rates_of_false_positives_and_of_misses_have_a_scale_each(
    drawn: list[Figure], tmp_path: Path
) -> None:
    errors.by_surroundings(table(), "linear", "seeds and fields of view", tmp_path / "a.png")
    (figure,) = drawn
    assert "95 % over seeds and fields of view" in figure.get_supxlabel()
    false, missed = figure.axes[:3], figure.axes[3:]
    for row, quantity in ((false, "false_positive_rate"), (missed, "miss_rate")):
        first = QUANTITIES[quantity]
        assert row[0].get_ylabel() == quantity.replace("_", " ")
        shown = [panel for panel in row if panel.axison]
        assert [panel.get_title() for panel in shown] == ["pixels to the border", "kind"]
        assert shown[0].lines[0].get_ydata() == pytest.approx([first, first + 0.1])
        for panel in shown:
            low, high = panel.get_ylim()
            assert low < 0
            assert high == pytest.approx(1.05 * 1.2 * (first + 0.1))
    assert ticks(false[1]) == ["none"]
    assert ticks(missed[1]) == ["none", "event"]


def view() -> Close:
    events = pd.DataFrame({"y": [20.0], "x": [12.0], "radius": [5.0]})
    outlines = np.zeros((2, 32, 32), np.int64)
    outlines[:, 4:9, 4:9] = 3
    frames = np.stack([np.full((32, 32), 0.25), np.full((32, 32), 0.75)]).astype(np.float32)
    ways = {"evidence": np.full((32, 32), 0.5, np.float32), "Grad-CAM": np.zeros((32, 32), np.float32)}
    return Close(frames, outlines, ways, top=8, left=6, size=16, events=events)


def test_a_mistake_shows_its_crop_the_event_and_both_attributions(
    drawn: list[Figure], tmp_path: Path
) -> None:
    row = {"mistake": "false negative", "movie": "m", "t": 4, "y": 21.0, "x": 33.0, "probability": 0.1}
    errors.gallery(pd.DataFrame([row, row]), [view(), view()], "attribution: of a net", tmp_path / "a.png")
    (figure,) = drawn
    assert figure.get_suptitle() == "attribution: of a net"
    assert [part.get_suptitle() for part in figure.subfigs] == [
        "no false positives",
        "false negatives, the most confident first",
    ]
    assert not any(panel.images for panel in figure.subfigs[0].axes[:8])
    panels = figure.subfigs[1].axes[-8:]
    heads = [panel.get_title(loc="left").split("\n") for panel in panels]
    assert [head[0] for head in heads[:4]] == ["t", "t + delta", "evidence", "Grad-CAM"]
    assert heads[0][1] == heads[4][0] == "p 0.100  m  t 4  y 21  x 33"  # heads stand above the first row
    greys = [float(np.asarray(panel.images[0].get_array()).mean()) for panel in panels[:4]]
    assert greys == [0.25, 0.75, 0.25, 0.25]  # attribution lies on the first frame
    assert [len(panel.images) for panel in panels[:4]] == [1, 1, 2, 2]
    for panel in panels:
        (box,) = (patch for patch in panel.patches if isinstance(patch, Rectangle))
        (disc,) = (patch for patch in panel.patches if isinstance(patch, Circle))
        assert (box.get_x(), box.get_y(), box.get_width()) == (5.5, 7.5, 16)
        assert (tuple(disc.center), disc.radius) == ((12, 20), 5)
        assert panel.get_xlim() == (-0.5, 31.5)
    assert [len(panel.collections) for panel in panels[:4]] == [1, 1, 0, 0]  # the mask's edge


def test_events_of_the_wrong_kind_have_a_part_of_their_own(drawn: list[Figure], tmp_path: Path) -> None:
    row = {"movie": "m", "t": 4, "y": 21.0, "x": 33.0, "probability": 0.7, "class": "death"}
    missed = {**row, "mistake": "false negative", "called": "none"}
    mixed = {**row, "mistake": "wrong kind", "called": "division"}
    errors.gallery(pd.DataFrame([missed, mixed]), [view(), view()], "attribution", tmp_path / "a.png")
    (figure,) = drawn
    assert [part.get_suptitle() for part in figure.subfigs] == [
        "no false positives",
        "false negatives, the most confident first",
        "wrong kinds, the most confident first",
        "",
    ]
    first = figure.subfigs[2].axes[0]
    assert first.get_title(loc="left").split("\n")[1] == "p 0.700  death called division  m  t 4  y 21  x 33"
    assert not figure.subfigs[3].axes


def test_a_flat_map_is_drawn_without_regions(drawn: list[Figure], tmp_path: Path) -> None:
    frames, flat = np.zeros((2, 40, 60), np.float32), np.zeros((40, 60), np.float32)
    none = pd.DataFrame({"y": [], "x": []})
    insets = Insets.around(none, 16, frames, {"grad_cam": flat}, {})
    events = pd.DataFrame({"y": [12.0], "x": [18.0], "radius": [4.0]})
    path = explain.overlay_figure(frames, flat, none, insets, events, "a title", tmp_path / "a.png")
    assert path.is_file()
    (figure,) = drawn
    assert len(figure.axes) == 2  # and no squares
    assert "no place stands out" in figure.get_supxlabel()
    for panel in figure.axes:
        assert [patch.radius for patch in panel.patches if isinstance(patch, Circle)] == [4]


def test_a_frame_pair_shows_regions_by_number_and_events(drawn: list[Figure], tmp_path: Path) -> None:
    frames = np.zeros((2, 40, 60), np.float32)
    cam = np.zeros((40, 60), np.float32)
    cam[10, 20] = 3
    regions = pd.DataFrame({"y": [10, 30], "x": [20, 50]})
    events = pd.DataFrame({"y": [12.0], "x": [18.0], "radius": [4.0]})
    other = np.stack([np.full((16, 16), -1.0), np.full((16, 16), 2.0)]).astype(np.float32)
    insets = Insets.around(regions, 16, frames, {"evidence": cam}, {"occlusion": other, "abs": abs(other)})
    explain.overlay_figure(frames, cam, regions, insets, events, "a title", tmp_path / "a.png")
    (figure,) = drawn
    assert figure.get_suptitle() == "a title"
    first, second = figure.axes[:2]
    assert [first.get_title(), second.get_title()] == ["frame t, with attribution", "frame t + delta"]
    assert [len(panel.images) for panel in (first, second)] == [2, 1]
    assert first.images[1].get_clim() == (0, 3)
    for panel in (first, second):
        boxes = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
        assert [(box.get_x(), box.get_y()) for box in boxes] == [(11.5, 1.5), (41.5, 21.5)]
        assert [text.get_text() for text in panel.texts] == ["1", "2"]
        assert [patch.radius for patch in panel.patches if isinstance(patch, Circle)] == [4]
    rows = np.reshape(np.array(figure.axes[2:], object), (5, 2))
    names = [row[0].get_ylabel().replace("\n", " ") for row in rows]
    assert names == ["t", "t + delta", "evidence", "occlusion", "abs"]
    assert [panel.get_title() for panel in rows[0]] == ["1", "2"]
    assert [panel.images[1].get_clim() for panel in rows[2]] == [(0, 3), (0, 3)]  # one for all
    for row in rows[3:]:  # each its own, 0 amid, whatever its signs
        assert [panel.images[1].get_clim() for panel in row] == [(-1, 1), (-2, 2)]
