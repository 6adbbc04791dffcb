"""Movies of several channels, seen together from file to prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import SamplerKind
from tapray.configfile import parse_config
from tapray.console import Reporter
from tapray.crops.draw import Region
from tapray.crops.normalise import frame_ranges, normalise
from tapray.crops.samplers import score_pair, smooth
from tapray.crops.shards import cut_crops
from tapray.data.movies import open_movie
from tapray.data.simulate import write_simulation
from tapray.entries import Reading
from tapray.errors import UserError
from tapray.job import run_job
from tapray.model.augment import augment
from tapray.model.tap import TapNet, freeze, initialise
from tapray.pretrain import frames as store
from tests.conftest import tiny_config
from tests.data.formats.test_ngff import write_zarr
from tests.test_cli import tapray

SHAPE = (6, 4, 20, 24)  # T, C, Y, X


def pixels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60_000, shape).astype(np.uint16)


def stack(path: Path, array: np.ndarray, axes: str, kind: str) -> Path:
    """`array` (T, C, Y, X) as a file of that kind with its axes in that order."""
    turned = np.ascontiguousarray(array.transpose(["TCYX".index(axis) for axis in axes]))
    if kind == "zarr":
        return write_zarr(path / "m.zarr", turned, axes)
    if kind == "npy":
        np.save(path / "m.npy", turned)
        return path / "m.npy"
    options: dict[str, Any] = {"imagej": True} if kind == "imagej" else {"ome": kind == "ome"}
    tifffile.imwrite(path / "m.tif", turned, metadata={"axes": axes}, photometric="minisblack", **options)
    return path / "m.tif"


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        ("plain", "TCYX"),
        ("ome", "CTYX"),
        ("imagej", "TCYX"),
        ("npy", "CTYX"),
        ("npy", "TYXC"),
        ("zarr", "TCYX"),
    ],
)
@pytest.mark.parametrize("channel", [(0, 1), (3, 0), (1, 3, 2)])
def test_channels_are_read_together_as_each_by_itself(
    tmp_path: Path, kind: str, axes: str, channel: tuple[int, ...]
) -> None:
    array = pixels()
    path = stack(tmp_path, array, axes, kind)
    movie = open_movie(path, reading=Reading(axes=axes, channel=channel))
    assert (movie.shape, movie.channels, movie.frame_shape) == (
        (6, 20, 24),
        len(channel),
        (len(channel), 20, 24),
    )
    assert np.array_equal(movie.read(1, 4), array[1:4, list(channel)])
    assert movie.read(2, 2).shape == (0, len(channel), 20, 24)
    np.testing.assert_allclose(movie.grey(5), array[5, list(channel)].mean(axis=0), rtol=1e-6)


def test_a_channel_that_is_not_there_or_there_twice_is_one_line(tmp_path: Path) -> None:
    path = stack(tmp_path, pixels(), "TCYX", "plain")
    with pytest.raises(UserError, match="has no channel 4; give channel: a number from 0 to 3"):
        open_movie(path, reading=Reading(axes="TCYX", channel=(0, 4)))
    with pytest.raises(ValueError, match="channel names one twice"):
        Reading(channel=(1, 1))


def test_movies_of_a_study_have_the_same_number() -> None:
    listed = [{"name": "a", "path": "a.tif", "channel": [0, 1]}, {"name": "b", "path": "b.tif", "channel": 0}]
    with pytest.raises(UserError, match="some have more channels than others"):
        parse_config({"movies": listed})
    assert parse_config({"movies": listed[:1]}).channels == 2


@settings(max_examples=20)
@given(st.integers(0, 2**16))
def test_crops_are_those_of_each_channel(seed: int) -> None:
    rng, frames = np.random.default_rng(seed), pixels()
    crops = pd.DataFrame(
        {"t": rng.integers(0, 4, 5), "y": rng.integers(0, 12, 5), "x": rng.integers(0, 16, 5)}
    )
    crops["delta"] = 2
    together = cut_crops(frames, crops, 0, 8)
    assert together.shape == (5, 2, 4, 8, 8)
    for channel in range(4):
        assert np.array_equal(together[:, :, channel], cut_crops(frames[:, channel], crops, 0, 8))
    ranges = frame_ranges(frames, "sqrt")
    assert ranges.shape == (6, 4, 2)
    for channel in range(4):
        assert np.array_equal(ranges[:, channel], frame_ranges(frames[:, channel], "sqrt"))


def test_pretraining_draws_the_same_place_of_every_channel(tmp_path: Path) -> None:
    frames, region = pixels((6, 2, 40, 48)), Region("m", 0, 6, 0, 0, 40, 48)
    config = parse_config(
        {
            "movies": [{"name": "m", "path": "m.tif", "channel": [0, 1]}],
            "pretrain": {"preset": "unet-8s2", "size": 16, "frames": 3},
        }
    )
    target, ranges = store.region_folder(tmp_path, region), frame_ranges(frames, "linear")
    store.create(target, region, frames.dtype, ranges, config)
    store.fill(target, 0, frames, 6, config)
    store.weigh(target, region, config, SamplerKind.CHANGE)
    flat = smooth(normalise(frames, ranges, "linear"))
    each = [score_pair(flat[2, channel], flat[3, channel], 16) for channel in range(2)]
    np.testing.assert_allclose(np.load(target / "scores-1.npy")[2], np.mean(each, axis=0), rtol=1e-5)
    stream = store.open_stream(tmp_path, [region], config, SamplerKind.CHANGE, 0)
    positions = stream.positions(0, 0, 20)
    crops = normalise(*stream.cut(positions), "linear")
    assert crops.shape == (20, 3, 2, 16, 16)
    whole = normalise(frames, ranges, "linear")
    for (_, t, y, x), crop in zip(positions, crops, strict=True):
        assert np.array_equal(crop, whole[t : t + 3, :, y : y + 16, x : x + 16])


@pytest.mark.parametrize("mode", ["light", "paper"])
def test_channels_of_a_frame_move_alike(mode: str) -> None:
    one = torch.rand(64, 2, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    out = augment(one.expand(-1, -1, 3, -1, -1), mode, torch.Generator().manual_seed(0)).flatten(-2)
    centred = out - out.mean(dim=-1, keepdim=True)
    scaled = centred / centred.norm(dim=-1, keepdim=True)
    alike = (scaled[:, :, 0] * scaled[:, :, 1]).sum(dim=-1)
    assert float(alike.min()) > 0.9  # but for noise; intensities differ by channel
    assert float((out[:, :, 0] - out[:, :, 1]).abs().max()) > 0.05


def test_a_net_of_one_channel_more_sees_it() -> None:
    net = TapNet("unet-8s2", channels=2)
    initialise(net, torch.Generator().manual_seed(0))
    freeze(net)
    crops = torch.rand(3, 2, 2, 16, 16)
    features = net.features(crops)
    assert features.shape == (3, 2, 32, 8, 8)
    crops[:, :, 1] += 1
    assert float((net.features(crops) - features).abs().max()) > 1e-3


@pytest.mark.slow
def test_a_whole_job_of_two_channels(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path / "run")
    assert config.simulate is not None
    entries = write_simulation(config.simulate, tmp_path / "movies")
    listed = []
    for entry in entries:
        frames = tifffile.imread(entry.path)
        noise = np.random.default_rng(1).integers(0, 500, frames.shape).astype(frames.dtype)
        both = np.stack([noise, frames, frames[:, ::-1]], axis=1)
        tifffile.imwrite(entry.path, both, metadata={"axes": "TCYX"}, photometric="minisblack")
        listed.append({**entry.model_dump(mode="json"), "axes": "TCYX", "channel": [1, 2]})
    data = json.loads(config.model_dump_json())
    run_job(parse_config({**data, "simulate": None, "movies": listed}), reporter=Reporter("quiet"))
    model, movie = tmp_path / "run" / "model", listed[-1]["path"]
    options = ("--axes", "TCYX", "--out", tmp_path / "found", "--progress", "quiet")
    assert tapray("predict", model, movie, "--channel", "1", "--channel", "2", *options) == 0
    assert len(list((tmp_path / "found").iterdir())) == 2
    assert tapray("predict", model, movie, "--channel", "1", *options) == 2
    assert "has 1 channel(s), the model sees 2; name the channels with --channel" in capsys.readouterr().err
    options = ("--axes", "TCYX", "--out", tmp_path)
    assert tapray("inspect", movie, *options, "--channel", "0", "--channel", "1") == 0
    assert "channel 0 and 1 of 3" in capsys.readouterr().out
