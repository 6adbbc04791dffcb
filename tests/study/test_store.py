"""The feature store gives every trial the same memory-mapped arrays."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tapray.config import Dimension, HeadKind, Init, JobConfig, Layer, Pooling
from tapray.model.heads import HEADS, build_head
from tapray.study.store import (
    FeatureStore,
    FrameCrops,
    features_name,
    frames_used,
    fronts,
    frozen_encoders,
    layers,
)
from tests.study.sources import write_store

N = 5


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    rng = np.random.default_rng(0)
    arrays = {"pixels": rng.normal(size=(N, 2, 16, 16)).astype(np.float16)}
    for name in ("tap-0-projection", "random_default-2-projection"):
        arrays[name] = rng.normal(size=(N, 2, 32, 8, 8)).astype(np.float16)
    index = pd.DataFrame({"crop_id": range(N), "label": [0, 1, 0, 2, 0]})
    return FeatureStore(write_store(tmp_path / "features", index, arrays))


def test_arrays_are_mapped_and_cannot_be_altered_on_disk(store: FeatureStore) -> None:
    for read in (store.pixels, lambda: store.features(Init.RANDOM_DEFAULT, 2, Layer.PROJECTION)):
        first = read()
        assert first.dtype == torch.float16
        kept = first.clone()
        first[:] = 0
        assert torch.equal(read()[:], kept)
    assert store.index().label.tolist() == [0, 1, 0, 2, 0]
    assert store.features(Init.TAP, 0, Layer.PROJECTION).shape == (N, 2, 32, 8, 8)


def test_an_evicted_array_is_missed(store: FeatureStore) -> None:
    assert store.complete()
    store.paths()["tap-0-projection"].unlink()
    assert not store.complete()


@pytest.mark.parametrize("kind", HeadKind)
def test_fronts_are_those_of_the_head_on_the_stored_features(store: FeatureStore, kind: HeadKind) -> None:
    given = (store.folder, Init.TAP, 0, kind, Layer.PROJECTION, Pooling.CENTRE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fronts(*given)
    head = build_head(kind, 32, 8, 3, torch.Generator().manual_seed(1))
    expected = head.front(store.features(Init.TAP, 0, Layer.PROJECTION)[:].float())
    torch.testing.assert_close(found[:].float(), expected)
    assert (found[:].dtype == torch.float16) == (not HEADS[kind].condenses)
    assert fronts(*given) is found  # kept for the next trial


def test_a_study_needs_the_features_of_its_frozen_arms() -> None:
    inits = [Init.TAP, Init.RANDOM_PAPER, Init.END_TO_END, Init.FINE_TUNE, Init.DIFFERENCE]
    study = {"inits": inits, "random_draws": 2}
    config = JobConfig.model_validate({"simulate": {}, "study": study, "pretrain": {"repeats": 2}})
    needed = frozen_encoders(config)
    assert [features_name(*item, Layer.BACKBONE) for item in needed] == [
        *("tap-0-backbone", "tap-1-backbone", "random_paper-0-backbone", "random_paper-1-backbone"),
        "difference-0-backbone",
    ]
    assert layers(config.study) == (Layer.PROJECTION,)
    searched = config.study.model_copy(update={"search": (Dimension.LAYER,)})
    assert layers(searched) == (Layer.PROJECTION, Layer.BACKBONE)


def test_crops_are_cut_from_frames_where_and_when_they_lie(tmp_path: Path) -> None:
    """Two movies, some of whose frames hold no crop; a feature tells its movie, frame and place."""
    rows = [("a", 1, 2, 4, 6), ("a", 3, 2, 5, 0), ("b", 0, 1, 0, 8), ("a", 1, 2, 8, 8)]
    index = pd.DataFrame(rows, columns=["movie", "t", "delta", "y", "x"]).sort_values(
        "movie", ignore_index=True
    )
    frames = {}
    for number, (name, own) in enumerate(index.groupby("movie")):
        used = frames_used(own)
        y, x = np.mgrid[:8, :8]
        told = [np.stack([np.full((8, 8), 10 * number + t), y, x]) for t in used]
        frames[str(name)] = np.stack(told).astype(np.float16)
    assert [len(frames[name]) for name in "ab"] == [3, 2]  # of a frames 1, 3 and 5
    crops = FrameCrops(index, frames, side=3, stride=2)
    assert crops.shape == (len(crops), 2, 3, 3, 3) == (4, 2, 3, 3, 3)
    for number, row in index.iterrows():
        found = crops[torch.tensor([number])][0].numpy()
        first = 10 * (row.movie == "b") + row.t
        assert found[:, 0, 0, 0].tolist() == [first, first + row.delta]
        assert found[0, 1:, 0, 0].tolist() == [row.y // 2, row.x // 2]
        assert found[0, 1:, 2, 2].tolist() == [row.y // 2 + 2, row.x // 2 + 2]
    several = torch.tensor([[3, 0], [2, 2]])
    assert torch.equal(crops[several][1, 0], crops[2:3][0])
    assert crops[several].shape == (2, 2, 2, 3, 3, 3)


def test_features_of_frames_are_found_by_their_movies(tmp_path: Path) -> None:
    index = pd.DataFrame({"movie": ["a", "b"], "t": 0, "delta": 1, "y": 2, "x": 0})
    frames = {name: np.full((2, 4, 5, 5), n, np.float16) for n, name in enumerate("ab")}
    arrays = {f"tap-0-projection/{name}": own for name, own in frames.items()}
    folder = write_store(tmp_path / "features", index, arrays)
    told = json.loads((folder / "arrays.json").read_text())
    (folder / "arrays.json").write_text(json.dumps({**told, "cut": {"tap-0-projection": [3, 2]}}))
    crops = FeatureStore(folder).features(Init.TAP, 0, Layer.PROJECTION)
    assert crops[:].amax(dim=(1, 2, 3, 4)).tolist() == [0, 1]
    assert crops.shape == (2, 2, 4, 3, 3)
