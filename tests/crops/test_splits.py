"""Splits share nothing in space and time, except the published one, which says so."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import JobConfig, Role, SplitKind
from tapray.configfile import parse_config
from tapray.crops.audit import Audit, audit
from tapray.crops.draw import Region
from tapray.crops.sites import labelled_crops
from tapray.crops.splits import pretrain_regions, split_regions
from tapray.data.annotations import Places, render_event_masks
from tapray.data.places import make_table, merge
from tapray.errors import UserError

ROLES = dict(zip("abc", Role, strict=True))


def job(kind: str, size: int = 12, delta: int = 1, **split: object) -> JobConfig:
    return parse_config(
        {
            "movies": [{"name": name, "path": name} for name in "abc"],
            "crops": {"size": size, "delta": delta, "jitter": 3, "crops_per_event": 2},
            "pretrain": {"size": 16},
            "split": {"kind": kind, **split},
        }
    )


def everywhere(shape: tuple[int, int, int], rng: np.random.Generator) -> Places:
    """Events and known negatives all over a movie."""
    n = 60
    t, y, x = (rng.uniform(0, length, 2 * n) for length in shape)
    t = t.astype(int)
    event = make_table("event", 1, t[:n], np.minimum(t[:n] + 1, shape[0] - 1), y[:n], x[:n], 4)
    return Places(merge([event, make_table("negative", 0, t[n:], t[n:], y[n:], x[n:], 4)]), True)


def audited(config: JobConfig, shape: tuple[int, int, int], seed: int) -> Audit:
    rng = np.random.default_rng(seed)
    regions = split_regions(config, dict.fromkeys("abc", shape), ROLES)
    parts = []
    for movie in "abc":
        places, own = everywhere(shape, rng), [item for item in regions if item.region.movie == movie]
        masks = render_event_masks(places, shape)
        parts.append(labelled_crops(places, own, config.crops, rng, masks))
    index = pd.concat(parts)
    assert set(index.split) <= set(ROLES.values())
    return audit(index, config.crops.size, pretrain_regions(config, regions))


@given(
    kind=st.sampled_from(["movie", "time_block", "tile"]),
    frames=st.integers(12, 40),
    height=st.integers(16, 130),
    width=st.integers(16, 130),
    size=st.integers(8, 16),
    delta=st.integers(1, 4),
    gap=st.sampled_from([None, 0, 3]),
    axis=st.sampled_from(["y", "x"]),
    order=st.permutations(["train", "val", "test"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_no_test_crop_overlaps_what_is_trained_on(
    kind: str,
    frames: int,
    height: int,
    width: int,
    size: int,
    delta: int,
    gap: int | None,
    axis: str,
    order: list[str],
    seed: int,
) -> None:
    config, shape = job(kind, size, delta, gap=gap, axis=axis, order=order), (frames, height, width)
    if kind != "movie":  # a movie always fits here, a part of one may not
        with contextlib.suppress(UserError):
            split_regions(config, dict.fromkeys("abc", shape), ROLES)
            assert not audited(config, shape, seed).leaks
        return
    assert not audited(config, shape, seed).leaks


def test_the_published_split_leaks_and_the_audit_says_so() -> None:
    result = audited(job("random_crop"), (12, 64, 64), 0)
    assert result.n_test > 50
    assert result.train > 0.5
    assert result.val > 0.2
    assert result.pretrain == 1
    assert result.leaks


def test_pretraining_on_test_frames_is_a_leak_too() -> None:
    config = job("movie")
    regions = split_regions(config, dict.fromkeys("abc", (12, 64, 64)), ROLES)
    assert [region.movie for region in pretrain_regions(config, regions)] == ["a"]
    wider = config.model_copy(
        update={"pretrain": config.pretrain.model_copy(update={"include": (Role.TRAIN, Role.TEST)})}
    )
    result = audited(wider, (12, 64, 64), 0)
    assert (result.train, result.pretrain, result.leaks) == (0, 1, True)


def regions(kind: str, shape: tuple[int, int, int], **split: object) -> list[tuple[Role | None, Region]]:
    items = split_regions(job(kind, **split), {"a": shape}, ROLES)
    return [(item.role, item.region) for item in items]


def test_time_blocks_leave_out_the_gap_between_them() -> None:
    blocks = regions("time_block", (50, 20, 30), gap=3, order=["test", "train", "val"])
    assert [(role, r.start, r.stop) for role, r in blocks] == [
        (Role.TEST, 0, 9),
        (Role.TRAIN, 11 + 1, 39),
        (Role.VAL, 41 + 1, 50),
    ]
    assert {(r.top, r.left, r.bottom, r.right) for _, r in blocks} == {(0, 0, 20, 30)}
    default = regions("time_block", (50, 20, 30))  # delta 1 + margin 2
    assert default[1][1].start - default[0][1].stop == 3


@pytest.mark.parametrize("axis", ["y", "x"])
def test_tiles_cut_the_axis_that_was_asked_for(axis: str) -> None:
    shape = (5, 100, 30) if axis == "y" else (5, 30, 100)
    strips = regions("tile", shape, axis=axis)
    cuts = [(r.top, r.bottom) if axis == "y" else (r.left, r.right) for _, r in strips]
    assert cuts == [(0, 60), (60, 80), (80, 100)]
    assert {(r.left, r.right) if axis == "y" else (r.top, r.bottom) for _, r in strips} == {(0, 30)}
    assert {(r.start, r.stop) for _, r in strips} == {(0, 5)}


def test_the_published_split_is_one_part_without_a_role() -> None:
    assert regions("random_crop", (5, 30, 40)) == [(None, Region("a", 0, 5, 0, 0, 30, 40))]


def test_a_movie_without_a_role_is_the_users_fault() -> None:
    with pytest.raises(UserError, match="b: has no role"):
        split_regions(job("movie"), {"a": (5, 30, 30), "b": (5, 30, 30)}, {"a": Role.TRAIN})


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("movie", (1, 30, 30)), ("movie", (5, 30, 15)), ("tile", (5, 30, 70)), ("time_block", (8, 30, 30))],
)
def test_a_part_too_small_for_a_crop_pair_is_the_users_fault(kind: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="cannot hold a crop pair of 16 px"):
        split_regions(job(kind), {"a": shape}, ROLES)


def test_every_kind_of_split_is_tested_here() -> None:
    assert {kind.value for kind in SplitKind} == {"movie", "time_block", "tile", "random_crop"}
