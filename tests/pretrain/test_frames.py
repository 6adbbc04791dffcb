"""Frames and drawing weights on disk: the same however they were filled, and drawn from within the region."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import JobConfig, SamplerKind
from tapray.configfile import parse_config
from tapray.console import Reporter
from tapray.crops.draw import CropStream, Region
from tapray.crops.normalise import frame_ranges, normalise
from tapray.crops.samplers import score_pair, smooth
from tapray.data.movies import Movie, open_movie
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import weights_digest
from tapray.pretrain import frames as store
from tapray.pretrain.evaluate import arrow_accuracy, evaluated

SHAPE, SIZE = (8, 48, 80), 16


@pytest.fixture
def movie(tmp_path: Path) -> Movie:
    frames = np.random.default_rng(0).integers(100, 200, SHAPE).astype(np.uint16)
    frames[4:, 20:28, 52:60] += 400  # appears between frames 3 and 4, and stays
    tifffile.imwrite(tmp_path / "m.tif", frames, photometric="minisblack")
    return open_movie(tmp_path / "m.tif")


def job(sampler: str = "change", *deltas: int, frames: int = 2) -> JobConfig:
    pretrain = {"preset": "unet-8s2", "size": SIZE, "batch": 64, "sampler": sampler, "sharpness": 3}
    return parse_config(
        {
            "movies": [{"name": "m", "path": "m.tif"}],
            "crops": {"size": SIZE},
            "pretrain": {**pretrain, "deltas": deltas or None, "frames": frames},
        }
    )


def cut(frames: np.ndarray, region: Region) -> np.ndarray:
    r = region
    return frames[r.start : r.stop, r.top : r.bottom, r.left : r.right]


def filled(
    whole: np.ndarray, region: Region, config: JobConfig, folder: Path, cuts: tuple[int, ...] = ()
) -> Path:
    """The region's folder in `folder`, filled in ranges cut at these frames, the last range first."""
    target = store.region_folder(folder, region)
    own, delta = cut(whole, region), max(config.deltas)
    ranges = frame_ranges(whole, "linear")[region.start : region.stop]
    store.create(target, region, whole.dtype, ranges, config)
    edges = sorted({0, len(own), *(c for c in cuts if c < len(own))})
    for start, stop in reversed(list(itertools.pairwise(edges))):
        store.fill(target, start, own[start : stop + delta], stop - start, config)
    for kind in evaluated(config):
        store.weigh(target, region, config, kind)
    return target


@settings(max_examples=15)
@given(cuts=st.sets(st.integers(1, 7)), delta=st.integers(1, 3))
def test_the_files_are_the_same_in_whatever_ranges_they_were_filled(
    tmp_path_factory: pytest.TempPathFactory, cuts: set[int], delta: int
) -> None:
    whole = np.random.default_rng(1).integers(0, 900, (8, 30, 41)).astype(np.uint16)
    region, config = Region("m", 0, 8, 3, 5, 30, 41), job("change", delta)
    one, other = (
        filled(whole, region, config, tmp_path_factory.mktemp("store"), parts) for parts in ((), tuple(cuts))
    )
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()
    assert np.array_equal(np.load(one / "frames.npy"), cut(whole, region))
    flat = normalise(cut(whole, region), frame_ranges(whole, "linear"), "linear")
    scores = np.load(one / f"scores-{delta}.npy")
    assert len(scores) == 8 - delta
    for t, found in enumerate(scores):
        assert np.array_equal(found, score_pair(smooth(flat[t]), smooth(flat[t + delta]), SIZE))


@pytest.mark.parametrize("delta", [1, 2])
@pytest.mark.parametrize(
    "region",
    [
        Region("m", 0, 8, 0, 0, 48, 80),
        Region("m", 2, 7, 0, 13, 48, 80),
        Region("m", 2, 7, 9, 13, 27, 31),
        Region("m", 3, 6, 8, 16, 24, 32),  # a single place
    ],
)
def test_a_source_covers_its_region_and_no_more(
    movie: Movie, tmp_path: Path, region: Region, delta: int
) -> None:
    config, whole = job("change", delta), movie.read(0, 8)
    filled(whole, region, config, tmp_path)
    stream = store.open_stream(tmp_path, [region], config, SamplerKind.CHANGE, 0)
    source = stream.sources[0]
    assert len(source.pairs) == region.stop - region.start - delta
    assert np.array_equal(source.ranges, frame_ranges(whole, "linear")[region.start : region.stop])
    positions = stream.positions(0, 0, 300)
    for (_, t, y, x), pair, limits in zip(positions[:20], *stream.cut(positions[:20]), strict=True):
        y, x, t = y + region.top, x + region.left, t + region.start
        assert region.top <= y <= region.bottom - SIZE
        assert region.left <= x <= region.right - SIZE
        assert np.array_equal(pair[0], whole[t, y : y + SIZE, x : x + SIZE])
        assert np.array_equal(limits, frame_ranges(whole[t : t + delta + 1 : delta], "linear"))


def test_mapped_files_are_drawn_from_as_arrays_in_memory_are(movie: Movie, tmp_path: Path) -> None:
    config, region = job(), Region("m", 0, 8, 0, 0, 48, 80)
    filled(movie.read(0, 8), region, config, tmp_path)
    mapped = store.open_stream(tmp_path, [region], config, SamplerKind.CHANGE, 3)
    source = mapped.sources[0]
    assert not source.frames.flags.owndata
    loaded = {name: np.array(getattr(source, name)) for name in ("frames", "ranges", "pairs", "places")}
    kept = CropStream([type(source)(region, 1, **loaded, grid=source.grid)], SIZE, 2, "linear", 3)
    for step in range(3):
        assert np.array_equal(mapped.positions(1, step, 64), kept.positions(1, step, 64))
        cuts = (stream.cut(stream.positions(1, step, 64)) for stream in (mapped, kept))
        assert all(map(np.array_equal, *cuts))


@pytest.mark.parametrize("cuts", [(), (3,), (2, 5)])
def test_several_deltas_and_longer_crops_have_drawing_weights_of_their_own(
    movie: Movie, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    whole, region, config = movie.read(0, 8), Region("m", 1, 8, 0, 13, 48, 80), job("change", 1, 3, frames=3)
    target = filled(whole, region, config, tmp_path, cuts)
    flat = normalise(cut(whole, region), frame_ranges(whole, "linear")[1:], "linear")
    for delta in (1, 3):
        scores = np.load(target / f"scores-{delta}.npy")
        expected = [score_pair(smooth(a), smooth(b), SIZE) for a, b in zip(flat, flat[delta:], strict=False)]
        assert np.array_equal(scores, expected)
        assert len(np.load(target / f"pairs-{delta}-change.npy")) == 7 - 2 * delta
    stream = store.open_stream(tmp_path, [region], config, SamplerKind.CHANGE, 0)
    assert [source.delta for source in stream.sources] == [1, 3]
    positions = stream.positions(0, 0, 500)
    assert set(positions[:, 0]) == {0, 1}
    crops = normalise(*stream.cut(positions[:50]), "linear")
    for (index, t, y, x), crop in zip(positions[:50], crops, strict=True):
        times = t + [0, 1, 2] * np.array(stream.sources[index].delta)
        assert np.array_equal(crop, flat[times, y : y + SIZE, x : x + SIZE])


@pytest.mark.parametrize("left", [0, 13])
def test_change_aware_drawing_finds_a_planted_change(movie: Movie, tmp_path: Path, left: int) -> None:
    region = Region("m", 2, 7, 0, left, 48, 80)
    filled(movie.read(0, 8), region, job(), tmp_path)

    def hits(kind: SamplerKind) -> float:
        """Share of all crops that are of the pair (3, 4) with the change within 8 px of their centre."""
        positions = store.open_stream(tmp_path, [region], job(), kind, 0).positions(0, 0, 4000)
        centre = positions[:, 2:] + [SIZE / 2, SIZE / 2 + left]
        near = np.abs(centre - [24, 56]).max(axis=1) <= 8
        return float((near & (positions[:, 1] == 3 - region.start)).mean())

    assert hits(SamplerKind.UNIFORM) < 0.08
    assert hits(SamplerKind.CHANGE) > 4 * hits(SamplerKind.UNIFORM)


def test_arrow_accuracy_names_both_samplers_and_leaves_the_net_alone(movie: Movie, tmp_path: Path) -> None:
    config = job()
    net = TapNet("unet-8s2")
    initialise(net, torch.Generator().manual_seed(0))
    before = weights_digest(net)
    regions = [Region("m", 0, 8, 0, 0, 48, 40), Region("m", 0, 8, 0, 40, 48, 80)]
    for region in regions:
        filled(movie.read(0, 8), region, config, tmp_path)
    found = arrow_accuracy(config, net, regions, tmp_path, Reporter("quiet"))
    assert set(found) == {SamplerKind.CHANGE.value, SamplerKind.UNIFORM.value}
    assert all(0.3 < value < 0.7 for value in found.values())
    assert found == arrow_accuracy(config, net, regions, tmp_path, Reporter("quiet"))
    assert weights_digest(net) == before
