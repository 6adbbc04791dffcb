"""A region's source and the arrow accuracy on regions, from real shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from tapray.config import JobConfig, SamplerKind
from tapray.configfile import parse_config
from tapray.crops.draw import CropStream, Region
from tapray.crops.samplers import STRIDE, grid_shape
from tapray.crops.shards import ShardReader, make_shard, write_table
from tapray.data.movies import Movie, open_movie
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import weights_digest
from tapray.pretrain.evaluate import arrow_accuracy
from tapray.pretrain.sources import region_source

SHAPE, SIZE = (8, 48, 80), 16


@pytest.fixture
def movie(tmp_path: Path) -> Movie:
    frames = np.random.default_rng(0).integers(100, 200, SHAPE).astype(np.uint16)
    frames[4:, 20:28, 52:60] += 400  # appears between frames 3 and 4, and stays
    tifffile.imwrite(tmp_path / "m.tif", frames, photometric="minisblack")
    return open_movie(tmp_path / "m.tif")


def job(sampler: str = "change", delta: int = 1) -> JobConfig:
    return parse_config(
        {
            "movies": [{"name": "m", "path": "m.tif"}],
            "crops": {"size": SIZE, "delta": delta},
            "pretrain": {"preset": "unet-8s2", "size": SIZE, "batch": 64, "sampler": sampler, "sharpness": 3},
        }
    )


def shards(movie: Movie, folder: Path, config: JobConfig) -> ShardReader:
    nothing = pd.DataFrame({name: pd.Series([], dtype=int) for name in ("crop_id", "t", "delta", "y", "x")})
    for part, (start, stop) in enumerate(((0, 5), (5, 8))):
        _, frames = make_shard(movie, start, stop, nothing, config.crops, SIZE)
        write_table(frames, folder / f"frames-{part:05d}.parquet")
    return ShardReader(folder)


@pytest.mark.parametrize("delta", [1, 2])
@pytest.mark.parametrize(
    "region",
    [
        Region("m", 0, 8, 0, 0, 48, 80),
        Region("m", 2, 7, 0, 13, 48, 80),
        Region("m", 2, 7, 9, 13, 27, 31),  # too narrow for a place of the movie's grid
        Region("m", 3, 6, 8, 16, 24, 32),  # a single place
    ],
)
def test_a_source_covers_its_region_and_no_more(
    movie: Movie, tmp_path: Path, region: Region, delta: int
) -> None:
    config = job(delta=delta)
    reader = shards(movie, tmp_path / "s", config)
    whole = movie.read(0, 8)
    frames = whole[region.start : region.stop, region.top : region.bottom, region.left : region.right]
    source = region_source(config, reader, region, movie.shape, frames)
    assert source.n_pairs == region.stop - region.start - delta
    assert np.array_equal(source.ranges, reader.ranges("m")[region.start : region.stop])
    stream = CropStream([source], SIZE, delta, "linear", 0)
    places = stream.places(0, 0, 300)
    for (_, t, y, x), pair in zip(places[:20], stream.cut(places[:20]), strict=True):
        low, high = source.ranges[t]
        y, x, t = y + region.top, x + region.left, t + region.start
        assert region.top <= y <= region.bottom - SIZE
        assert region.left <= x <= region.right - SIZE
        expected = (whole[t, y : y + SIZE, x : x + SIZE] - low) / (high - low)
        np.testing.assert_allclose(pair[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("left", [0, 13])
def test_change_aware_drawing_finds_a_planted_change(movie: Movie, tmp_path: Path, left: int) -> None:
    reader = shards(movie, tmp_path / "s", job())
    region = Region("m", 2, 7, 0, left, 48, 80)

    def hits(sampler: str) -> float:
        """Share of all crops that are of the pair (3, 4) with the change within 8 px of their centre."""
        frames = movie.read(2, 7)[:, :, left:]
        source = region_source(job(sampler), reader, region, movie.shape, frames)
        places = CropStream([source], SIZE, 1, "linear", 0).places(0, 0, 4000)
        centre = places[:, 2:] + [SIZE / 2, SIZE / 2 + left]
        near = np.abs(centre - [24, 56]).max(axis=1) <= 8
        return float((near & (places[:, 1] == 3 - region.start)).mean())

    assert hits("uniform") < 0.08
    assert hits("change") > 4 * hits("uniform")


def test_candidate_places_lie_where_the_scores_were_taken(movie: Movie, tmp_path: Path) -> None:
    config, region = job(), Region("m", 0, 8, 9, 13, 48, 80)
    reader = shards(movie, tmp_path / "s", config)
    source = region_source(config, reader, region, movie.shape, movie.read(0, 8)[:, 9:, 13:])
    assert source.offset == (16 - 9, 16 - 13)
    assert source.grid == ((48 - 16 - SIZE) // STRIDE + 1, (80 - 16 - SIZE) // STRIDE + 1)
    change = reader.scores("m", grid_shape(48, 80, SIZE)).change[3, 2:, 2:]
    steps = np.diff(source.cumulative, prepend=0.0).reshape(7, *source.grid)[3]
    assert np.unravel_index(steps.argmax(), steps.shape) == np.unravel_index(change.argmax(), change.shape)


def test_arrow_accuracy_names_both_samplers_and_leaves_the_net_alone(movie: Movie, tmp_path: Path) -> None:
    config = job()
    shards(movie, tmp_path / "s", config)
    net = TapNet("unet-8s2")
    initialise(net, torch.Generator().manual_seed(0))
    before = weights_digest(net)
    regions = [Region("m", 0, 8, 0, 0, 48, 40), Region("m", 0, 8, 0, 40, 48, 80)]
    found = arrow_accuracy(config, net, {"m": movie}, regions, tmp_path / "s")
    assert set(found) == {SamplerKind.CHANGE.value, SamplerKind.UNIFORM.value}
    assert all(0.3 < value < 0.7 for value in found.values())
    assert found == arrow_accuracy(config, net, {"m": movie}, regions, tmp_path / "s")
    assert weights_digest(net) == before
