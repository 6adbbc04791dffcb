"""Features by Ray Data: those of each crop, or cut from those of whole frames; made once for all studies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tapray.config import Init, JobConfig, Layer, MovieEntry
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.crops.normalise import normalise
from tapray.crops.shards import ShardReader
from tapray.distributed.cluster import GROWTH
from tapray.distributed.features import Sources, crops_digest, write_features
from tapray.model.tap import freeze
from tapray.model.weights import load_tap
from tapray.study.cache import FeatureCache
from tapray.study.store import FeatureStore
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


def sources_of(tiny_job: Path, config: JobConfig) -> Sources:
    entries = json.loads((tiny_job / "simulate" / "movies.json").read_text())
    movies = Inputs(config, [MovieEntry.model_validate(entry) for entry in entries]).movies
    return Sources(config, tiny_job / "shard", movies, tiny_job / "pretrain" / "model")


def test_features_are_those_of_the_frozen_net_and_are_made_once(
    tiny_job: Path, tmp_path: Path, ray_cluster: None
) -> None:
    study = {"inits": ["tap", "difference", "end_to_end"], "search": ["layer"]}
    config = tiny_config(tmp_path, study=study)
    sources, cache = sources_of(tiny_job, config), FeatureCache(tmp_path / "cache", 1e9)
    found = write_features(sources, tmp_path / "features", cache, Reporter("quiet"))
    assert (found["computed"], found["cached"]) == (4, 0)  # two layers, the difference and the pixels
    store, net = FeatureStore(tmp_path / "features"), freeze(load_tap(sources.model))
    pixels = store.pixels()[:].float()
    with torch.no_grad():
        for layer in Layer:
            expected = net.features(pixels, layer)
            torch.testing.assert_close(
                store.features(Init.TAP, 0, layer)[:].float(), expected, atol=2e-2, rtol=2e-2
            )
    change = store.features(Init.DIFFERENCE, 0, Layer.PROJECTION)[:].float()
    torch.testing.assert_close(change[:, 1, 0], pixels[:, 1] - pixels[:, 0], atol=5e-3, rtol=5e-3)
    again = write_features(sources, tmp_path / "again", cache, Reporter("quiet"))
    assert (again["computed"], again["cached"]) == (0, 4)
    other = write_features(sources, tmp_path / "other", cache, Reporter("quiet"), anew=True)
    assert other["computed"] == 4


def test_features_belong_to_places_and_not_to_labels(tiny_job: Path) -> None:
    index = ShardReader(tiny_job / "shard").index()
    labelled_anew = index.assign(label=1 - index["label"], split="test")
    assert crops_digest(labelled_anew, 32) == crops_digest(index, 32)
    others = (index.assign(y=index["y"] + 1), index.iloc[1:], index.iloc[::-1])
    assert crops_digest(index, 32) not in {crops_digest(other, 32) for other in others}
    assert crops_digest(index, 32) != crops_digest(index, 33)


def test_crops_are_cut_from_the_features_of_whole_frames(
    tiny_job: Path, tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GROWTH, "CPU=8")  # machines that may come, and do not
    config = tiny_config(tmp_path, crops={"features": "frame"}, study={"inits": ["tap"]})
    sources, cache = sources_of(tiny_job, config), FeatureCache(tmp_path / "cache", 1e9)
    write_features(sources, tmp_path / "features", cache, Reporter("quiet"))
    assert write_features(sources, tmp_path / "other", cache, Reporter("quiet"))["computed"] == 0
    store, net = FeatureStore(tmp_path / "features"), freeze(load_tap(sources.model))
    crops, index = store.features(Init.TAP, 0, Layer.PROJECTION), store.index()
    assert crops.shape == (len(index), 2, 32, 16, 16)
    reader = ShardReader(sources.shards)
    for number in np.linspace(0, len(index) - 1, 5).astype(int):
        row: pd.Series = index.iloc[number]
        ranges, movie = reader.ranges(row.movie), sources.movies[row.movie]
        for slot, t in enumerate((row.t, row.t + row.delta)):
            frame = normalise(movie.read(t, t + 1), ranges[t : t + 1], "linear")
            with torch.no_grad():
                whole = net.features(torch.from_numpy(frame)[:, None])[0, 0]
            y, x = row.y // 2, row.x // 2
            expected = whole[:, y : y + 16, x : x + 16]
            torch.testing.assert_close(
                crops[number : number + 1][0, slot].float(), expected, atol=2e-2, rtol=2e-2
            )
