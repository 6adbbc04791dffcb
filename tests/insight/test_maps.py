"""Feature maps: colours that follow the features, and crops that lie near what they are like."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tapray.insight import maps
from tapray.insight.maps import as_colours, crop_map, crop_means, shown_crops


def test_colours_follow_the_features() -> None:
    rng = np.random.default_rng(0)
    features = 0.05 * rng.normal(size=(8, 20, 30))
    features[:4, :, 15:] += 1
    found = as_colours(features.astype(np.float32))
    assert found.shape == (20, 30, 3)
    assert 0 <= found.min() <= found.max() <= 1
    halves = found[:, :15, 0].mean(), found[:, 15:, 0].mean()
    assert abs(halves[0] - halves[1]) > 0.7
    assert np.array_equal(found, as_colours(features.astype(np.float32)))


def test_a_map_is_made_of_means_over_space_a_few_crops_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 2, 6, 3, 3)).astype(np.float16)
    rows = np.arange(1, 30, 2)
    taken: list[int] = []

    class Store:
        def __len__(self) -> int:
            return len(features)

        def __getitem__(self, wanted: np.ndarray) -> torch.Tensor:
            taken.append(len(wanted))
            return torch.from_numpy(features[wanted])

    means = features.astype(np.float32).mean(axis=(-2, -1))[rows]
    wanted = np.hstack([means[:, 0], means[:, 1], means[:, 1] - means[:, 0]])
    monkeypatch.setattr(maps, "AT_ONCE", 4)
    np.testing.assert_allclose(crop_means(Store(), rows), wanted, atol=1e-5)
    assert taken == [4, 4, 4, 3]
    np.testing.assert_allclose(crop_means(torch.from_numpy(features), rows), wanted, atol=1e-5)


def test_of_many_crops_a_map_shows_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_crops(50, 0).tolist() == list(range(50))
    monkeypatch.setattr(maps, "MOST", 20)
    some = shown_crops(50, 0)
    assert len(some) == len(set(some.tolist())) == 20
    assert (np.diff(some) > 0).all()
    assert some.tolist() == shown_crops(50, 0).tolist() != shown_crops(50, 1).tolist()


@pytest.mark.slow
def test_crops_of_a_kind_lie_together_and_the_map_repeats() -> None:
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], 40)
    features = rng.normal(size=(80, 2, 6, 3, 3)) + 4 * kind[:, None, None, None, None]
    inputs = crop_means(torch.from_numpy(features.astype(np.float16)), np.arange(80))
    found = crop_map(inputs, 0)
    assert found.shape == (80, 2)
    centres = np.stack([found[kind == own].mean(axis=0) for own in (0, 1)])
    nearest = np.linalg.norm(found[:, None] - centres, axis=-1).argmin(axis=1)
    assert (nearest == kind).mean() > 0.95
    assert np.array_equal(found, crop_map(inputs, 0))
