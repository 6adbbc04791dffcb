"""Axes: what a file says of itself, what a user says, and what is too unclear to guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.data.axes import lay_out
from tapray.data.formats.base import Header, micrometres, seconds
from tapray.entries import Reading
from tapray.errors import UserError

FILE = Path("m.tif")


def header(axes: str, *shape: int) -> Header:
    return Header(axes, shape, np.dtype(np.uint16))


@pytest.mark.parametrize(
    ("file", "said", "axes", "picks"),
    [
        (header("TYX", 5, 8, 9), {}, "TYX", (None, None, None)),
        (header("QYX", 5, 8, 9), {}, "TYX", (None, None, None)),
        (header("CYX", 5, 8, 9), {}, "TYX", (None, None, None)),
        (header("ZYX", 5, 8, 9), {}, "TYX", (None, None, None)),
        (header("TZYX", 1, 5, 8, 9), {}, "QTYX", (0, None, None, None)),
        (header("TCYX", 5, 2, 8, 9), {"channel": 1}, "TCYX", (None, 1, None, None)),
        (header("QCYX", 5, 2, 8, 9), {"channel": 1}, "TCYX", (None, 1, None, None)),
        (header("ZCYX", 5, 2, 8, 9), {"channel": 1}, "TCYX", (None, 1, None, None)),
        (header("TCZYX", 5, 1, 3, 8, 9), {"plane": 2}, "TCZYX", (None, 0, 2, None, None)),
        (header("TYXS", 5, 8, 9, 3), {"channel": 0}, "TYXS", (None, None, None, 0)),
        (header("YXT", 8, 9, 5), {}, "YXT", (None, None, None)),
        (header("ZCYX", 5, 2, 8, 9), {"axes": "CTYX", "channel": 4}, "CTYX", (4, None, None, None)),
    ],
)
def test_layouts(file: Header, said: dict[str, object], axes: str, picks: tuple[int | None, ...]) -> None:
    layout = lay_out(file, Reading.model_validate(said), FILE)
    assert (layout.axes, layout.picks) == (axes, picks)


@pytest.mark.parametrize(
    ("file", "said", "match"),
    [
        (header("YX", 8, 9), {}, "one frame only"),
        (header("TYX", 1, 8, 9), {}, "one frame only"),
        (header("CYX", 3, 8, 9), {"channel": 0}, "one frame only"),
        (header("TCYX", 5, 2, 8, 9), {}, "has 2 channels; give channel: a number from 0 to 1"),
        (header("TCYX", 5, 2, 8, 9), {"channel": 2}, "has no channel 2; give channel"),
        (header("TYX", 5, 8, 9), {"channel": 2}, "has no channel 2, it has one"),
        (header("TZYX", 5, 4, 8, 9), {}, "has 4 planes; give plane: a number from 0 to 3"),
        (header("ZCYX", 5, 2, 8, 9), {}, r"axes ZCYX of shape \(5, 2, 8, 9\) name no time"),
        (header("QQYX", 5, 2, 8, 9), {}, "name no time"),
        (header("TQYX", 5, 2, 8, 9), {}, "are unclear"),
        (header("TXS", 5, 8, 9), {}, "are not those of images"),
        (header("TYX", 5, 8, 9), {"axes": "TCYX"}, "name 4 dimensions, the file has 3"),
        (header("TYX", 5, 8, 9), {"axes": "ZYX"}, "not those of a movie"),
        (header("TCYX", 5, 2, 8, 9), {"axes": "TTYX"}, "not those of a movie"),
    ],
)
def test_what_is_unclear_is_refused(file: Header, said: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=rf"m\.tif: .*{match}"):
        lay_out(file, Reading.model_validate(said), FILE)


@settings(max_examples=60)
@given(
    order=st.permutations("TCZYX"),
    channel=st.integers(0, 1),
    plane=st.integers(0, 2),
    start=st.integers(0, 3),
)
def test_the_index_takes_the_frames_of_one_channel_and_plane(
    order: list[str], channel: int, plane: int, start: int
) -> None:
    sizes = {"T": 4, "C": 2, "Z": 3, "Y": 5, "X": 6}
    whole = np.arange(4 * 2 * 3 * 5 * 6).reshape(4, 2, 3, 5, 6)
    file = whole.transpose(["TCZYX".index(axis) for axis in order])
    axes = "".join(order)
    layout = lay_out(
        header(axes, *(sizes[axis] for axis in axes)), Reading(channel=channel, plane=plane), FILE
    )
    got = file[layout.index(start, 4)].transpose(layout.order)
    np.testing.assert_array_equal(got, whole[start:4, channel, plane])


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("0.65", "µm", 0.65),
        (650, "nm", 0.65),
        (2, "micron", 2.0),
        (0, "um", None),
        ("x", "um", None),
        (1, "pixel", None),
    ],
)
def test_lengths(value: object, unit: str, expected: float | None) -> None:
    assert micrometres(value, unit) == (pytest.approx(expected) if expected else None)


def test_durations() -> None:
    assert seconds(30, "min") == 1800
    assert seconds("250", "ms") == 0.25
    assert seconds(None, "s") is None
    assert seconds(float("nan"), "s") is None
