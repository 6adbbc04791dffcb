"""Feature maps: colours that follow the features, and crops that lie near what they are like."""

from __future__ import annotations

import numpy as np
import pytest

from tapray.insight.maps import as_colours, crop_map


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


@pytest.mark.slow
def test_crops_of_a_kind_lie_together_and_the_map_repeats() -> None:
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], 40)
    features = rng.normal(size=(80, 2, 6, 3, 3)) + 4 * kind[:, None, None, None, None]
    found = crop_map(features.astype(np.float16), 0)
    assert found.shape == (80, 2)
    centres = np.stack([found[kind == own].mean(axis=0) for own in (0, 1)])
    nearest = np.linalg.norm(found[:, None] - centres, axis=-1).argmin(axis=1)
    assert (nearest == kind).mean() > 0.95
    assert np.array_equal(found, crop_map(features.astype(np.float16), 0))
