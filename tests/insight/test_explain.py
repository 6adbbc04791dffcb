"""Where attribution is looked at, and what stands out there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tapray.config import CropConfig, Role
from tapray.crops.draw import Region
from tapray.explaining import Look, _looks, _others
from tapray.insight.explain import INSETS, PAIRS, WAYS, along, stretches, strongest_regions, window
from tapray.model.attribution import attribution, evidence
from tapray.model.tap import TapNet
from tests.insight.conftest import Noise

FIELD = Region("m", 0, 100, 0, 0, 60, 80)


def places(*events: tuple[int, float, float]) -> dict[str, pd.DataFrame]:
    rows = [("event", t, t + 1, y, x, 10.0) for t, y, x in events]
    rows.append(("negative", 50, 50, 30.0, 30.0, 10.0))
    rows.append(("unknown", 62, 63, 45.0, 25.0, 6.0))
    return {"m": pd.DataFrame(rows, columns=["kind", "t", "t_end", "y", "x", "radius"])}


def test_a_stretch_holds_most_events_and_knows_them_in_its_own_pixels() -> None:
    region = Region("m", 0, 100, 20, 10, 60, 80)
    known = places((5, 30, 30), (60, 30, 30), (70, 40, 50), (65, 12, 50))  # the last above the region
    (found,) = stretches([region], known, 1)
    assert found.pairs == PAIRS
    assert found.first <= 60
    assert found.first + found.pairs > 70
    assert found.events[["t", "y", "x"]].to_numpy().tolist() == [[5, 10, 20], [60, 10, 20], [70, 20, 40]]
    inside = found.inside(2)
    assert inside.shape == (PAIRS, 20, 35)
    shown = found.times[inside.any(axis=(1, 2))]
    assert shown.tolist() == [60, 70]
    assert found.times[~found.known(2).all(axis=(1, 2))].tolist() == [62, 65]  # that above reaches into it


def test_pairs_are_shared_among_the_regions_with_most_events() -> None:
    regions = [Region("m", start, start + 8, 0, 0, 60, 80) for start in range(0, 80, 8)]
    known = places(*[(t, 30, 30) for t in (9, 10, 33, 65)])
    found = stretches(regions, known, 2)
    assert [own.region.start for own in found][:3] == [8, 32, 64]
    assert all(own.pairs == min(PAIRS // len(found), 6) for own in found)
    assert all(own.first + own.pairs + 2 <= own.region.stop for own in found)


def test_maps_of_a_region_are_those_of_its_frames(noise: Noise, net: TapNet) -> None:
    _, movie = noise(6, 48, 64)
    (stretch,) = stretches([Region("m", 0, 6, 0, 0, 48, 64)], places((2, 20, 20)), 2)
    told: list[None] = []
    seen = along({"tap": net}, movie, stretch, "linear", lambda: told.append(None))
    maps = seen.maps["tap"]
    assert {way: own.shape for way, own in maps.items()} == dict.fromkeys(WAYS, (4, 24, 32))
    assert min(own.min() for own in maps.values()) >= 0
    assert len(told) == 6  # frames
    assert seen.film.shape == (4, 48, 64)
    assert seen.number == 1  # frames 1 and 3 show all of the event from 2 to 3
    np.testing.assert_array_equal(seen.frames, [stretch.frame(movie, t, "linear") for t in (1, 3)])
    assert seen.features.shape == (32, 24, 32)
    pair = np.stack([stretch.frame(movie, t, "linear") for t in (1, 3)])
    for way, whole in attribution(net, pair[None]).items():
        small = maps[way][1]
        halved = whole[0].reshape(24, 2, 32, 2).mean(axis=(1, 3))
        assert np.corrcoef(halved.ravel(), small.ravel())[0, 1] > 0.9


def test_other_ways_count_what_both_frames_say(net: TapNet) -> None:
    frames = np.random.default_rng(0).random((2, 48, 64)).astype(np.float32)
    regions = pd.DataFrame({"y": [16, 30], "x": [16, 45]})
    found = _others(net.eval(), frames, regions, 32)
    crops = torch.from_numpy(np.stack([frames[:, :32, :32], frames[:, 14:46, 29:61]]))
    ends = [evidence(net, net.features(own)).mean(dim=(1, 2)) for own in (crops, torch.zeros_like(crops))]
    lead = ends[0] - ends[1]
    assert {own.shape for own in found.values()} == {(2, 32, 32)}
    assert _others(net, frames, regions[:0], 32) == {}
    np.testing.assert_allclose(found["integrated_gradients"].sum(axis=(1, 2)), lead, rtol=0.1, atol=0.02)


def test_a_look_is_drawn_of_small_crops_and_of_flat_maps(noise: Noise, net: TapNet, tmp_path: Path) -> None:
    """A Grad-CAM may be 0 all over, and crops smaller than what a net pools evenly."""
    _, movie = noise(5, 40, 56)
    size = net.backbone.divisor - 4
    config = SimpleNamespace(crops=CropConfig(size=size))
    inputs: Any = SimpleNamespace(config=config, movies={"m": movie})
    look = Look(inputs, stretches([Region("m", 0, 5, 0, 0, 40, 56)], places((2, 20, 20)), 1))
    (seen,) = look.along({"tap": net, "random_default": net}, lambda: None)
    seen.maps["tap"]["grad_cam"][:] = 0
    paths = look.pictures(net, seen, tmp_path, Role.TRAIN)
    names = ["evidence_train.png", "evidence_train.csv", "grad_cam_train.png", "grad_cam_train.csv"]
    assert [path.name for path in paths] == [*names, "features_train.png"]
    assert all(path.is_file() for path in paths)
    assert len(pd.read_csv(paths[1])) == INSETS
    assert pd.read_csv(paths[3]).empty
    tables = list(look.numbers([seen]))
    assert [str(own["way"].iloc[0]) for own in tables] == list(WAYS)
    shares = [own[own["metric"] == "mass_share"]["value"].iloc[0] for own in tables]
    assert np.isfinite(shares[0])
    assert np.isnan(shares[1])  # of nothing


def test_of_a_split_that_shares_its_frames_they_are_looked_at_once() -> None:
    whole, other = Region("m", 0, 10, 0, 0, 60, 80), Region("m", 20, 30, 0, 0, 60, 80)
    known = {name: SimpleNamespace(table=table) for name, table in places((2, 20, 20)).items()}

    def looked(test: Region) -> list[Role]:
        regions = {Role.TRAIN: [whole], Role.TEST: [test]}
        config = SimpleNamespace(crops=CropConfig())
        inputs: Any = SimpleNamespace(config=config, places=known, regions_of=regions.get)
        return list(_looks(inputs))

    assert looked(other) == [Role.TRAIN, Role.TEST]
    assert looked(whole) == [Role.TRAIN]


def test_regions_that_stand_out_lie_apart() -> None:
    cam = np.random.default_rng(0).random((50, 60)).astype(np.float32)
    cam[20, 30] = 5
    found = strongest_regions(cam, 16, 2)
    assert len(found) == INSETS
    assert found["attribution"].is_monotonic_decreasing
    assert found[["y", "x"]].iloc[0].tolist() == pytest.approx([40.5, 60.5], abs=0.5)
    apart = np.abs(found[["y", "x"]].to_numpy()[:, None] - found[["y", "x"]].to_numpy()).max(axis=-1)
    assert apart[~np.eye(INSETS, dtype=bool)].min() > 8
    assert strongest_regions(np.zeros((20, 20), np.float32), 16, 2).empty


def test_windows_move_inwards_at_borders() -> None:
    image = np.arange(5 * 10 * 12).reshape(5, 10, 12)
    assert window(image, 0, 0, 4)[0, 0, 0] == 0
    assert (window(image, 9, 11, 4) == image[..., 6:, 8:]).all()
    assert (window(image, 5, 6, 4) == image[..., 3:7, 4:8]).all()
