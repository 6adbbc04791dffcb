"""The feature store gives every trial the same memory-mapped arrays."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tapray.config import HeadKind, Init
from tapray.model.heads import build_head
from tapray.study.store import FeatureStore, encoder_name, fronts, frozen_encoders

N = 5


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "pixels.npy", rng.normal(size=(N, 2, 16, 16)).astype(np.float16))
    for name in ("tap-0", "random_default-2"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(N, 2, 32, 8, 8)).astype(np.float16))
    pd.DataFrame({"crop_id": range(N), "label": [0, 1, 0, 2, 0]}).to_parquet(tmp_path / "index.parquet")
    return FeatureStore(tmp_path)


def test_arrays_are_mapped_and_cannot_be_altered_on_disk(store: FeatureStore) -> None:
    for read in (store.pixels, lambda: store.features(Init.RANDOM_DEFAULT, 2)):
        first = read()
        assert isinstance(first, np.memmap)
        assert first.dtype == np.float16
        kept = first.copy()
        first[:] = 0
        assert np.array_equal(read(), kept)
    assert store.index().label.tolist() == [0, 1, 0, 2, 0]
    assert store.features(Init.TAP, 0).shape == (N, 2, 32, 8, 8)


@pytest.mark.parametrize("kind", HeadKind)
def test_fronts_are_those_of_the_head_on_the_stored_features(store: FeatureStore, kind: HeadKind) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fronts(store.folder, Init.TAP, 0, kind)
    head = build_head(kind, 32, 8, 3, 0.0, torch.Generator().manual_seed(1))
    expected = head.front(torch.from_numpy(store.features(Init.TAP, 0).astype(np.float32)))
    torch.testing.assert_close(found.float(), expected)
    assert (found.dtype == torch.float16) == (kind in (HeadKind.LINEAR, HeadKind.RESNET))
    assert fronts(store.folder, Init.TAP, 0, kind) is found  # kept for the next trial


def test_a_study_needs_the_features_of_its_frozen_arms() -> None:
    inits = (Init.TAP, Init.RANDOM_PAPER, Init.END_TO_END, Init.FINE_TUNE)
    needed = frozen_encoders(inits, 2)
    assert needed == [(Init.TAP, 0), (Init.RANDOM_PAPER, 0), (Init.RANDOM_PAPER, 1)]
    assert [encoder_name(*item) for item in needed] == ["tap-0", "random_paper-0", "random_paper-1"]
