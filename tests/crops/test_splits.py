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
from tapray.crops.splits import MovieFacts, pretrain_regions, split_regions
from tapray.data.annotations import Places, render_event_masks
from tapray.data.places import make_table, merge
from tapray.errors import UserError

ROLES = dict(zip("abc", Role, strict=True))


def movies(
    shape: tuple[int, int, int], names: str = "abc", longest: int = 0, *, roles: bool = True
) -> dict[str, MovieFacts]:
    return {name: MovieFacts(shape, ROLES[name] if roles else None, longest_event=longest) for name in names}


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
    whole = config.split.kind in (SplitKind.MOVIE, SplitKind.FIELD)
    regions = split_regions(config, movies(shape, roles=whole))
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
@settings(max_examples=25)
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
            split_regions(config, movies(shape, roles=False))
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
    regions = split_regions(config, movies((12, 64, 64)))
    assert [region.movie for region in pretrain_regions(config, regions)] == ["a"]
    wider = config.model_copy(
        update={"pretrain": config.pretrain.model_copy(update={"include": (Role.TRAIN, Role.TEST)})}
    )
    result = audited(wider, (12, 64, 64), 0)
    assert (result.train, result.pretrain, result.leaks) == (0, 1, True)


def regions(kind: str, shape: tuple[int, int, int], **split: object) -> list[tuple[Role | None, Region]]:
    items = split_regions(job(kind, **split), movies(shape, "a", roles=False))
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
        split_regions(job("movie"), {"a": MovieFacts((5, 30, 30), Role.TRAIN), "b": MovieFacts((5, 30, 30))})


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("movie", (1, 30, 30)), ("movie", (5, 30, 15)), ("tile", (5, 30, 70)), ("time_block", (8, 30, 30))],
)
def test_a_part_too_small_for_a_crop_pair_is_the_users_fault(kind: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="cannot hold a crop pair of 16 px"):
        split_regions(job(kind), movies(shape, "a", roles=kind == "movie"))


def test_every_kind_of_split_is_tested_here() -> None:
    assert {kind.value for kind in SplitKind} == {"movie", "field", "time_block", "tile", "random_crop"}


def test_the_default_gap_covers_the_longest_event() -> None:
    items = split_regions(job("time_block"), movies((60, 20, 30), "a", longest=4, roles=False))
    assert items[1].region.start - items[0].region.stop == 1 + 2 + 4


def roles_of(config: JobConfig, facts: dict[str, MovieFacts]) -> dict[str, Role | None]:
    return {item.region.movie: item.role for item in split_regions(config, facts)}


@given(n=st.integers(3, 9), folds=st.one_of(st.just("each"), st.integers(3, 9)), seed=st.integers(0, 50))
@settings(max_examples=40)
def test_over_the_folds_every_field_is_tested_once(n: int, folds: int | str, seed: int) -> None:
    shape, fields = (9, 30, 30), [f"f{i // 2}" for i in range(2 * n)]  # two movies of each field
    shared = {str(i): MovieFacts(shape, field=field) for i, field in enumerate(fields)}
    with pytest.raises(UserError, match="some movies share a field of view"):
        split_regions(job("movie", folds=folds), shared)
    own = {name: MovieFacts(shape, field=name) for name in shared}
    for kind, units, facts in (("field", n, shared), ("movie", 2 * n, own)):
        parts = units if folds == "each" else int(folds)
        tested: list[str] = []
        for fold in range(parts):
            config = job(kind, folds=folds, fold=fold).model_copy(update={"seed": seed})
            if parts > units:
                with pytest.raises(UserError, match="folds need as many"):
                    split_regions(config, facts)
                continue
            roles = roles_of(config, facts)
            assert set(roles.values()) == set(Role)
            tested += [name for name, role in roles.items() if role is Role.TEST]
            if kind == "field":
                assert all(roles[str(2 * i)] is roles[str(2 * i + 1)] for i in range(n))
        assert parts > units or sorted(tested, key=int) == list(facts)


@pytest.mark.parametrize("kind", ["time_block", "tile"])
def test_folds_of_parts_cover_the_movie_once(kind: str) -> None:
    tested = []
    for fold in range(4):
        items = split_regions(job(kind, folds=4, fold=fold, gap=2), movies((60, 20, 200), "a", roles=False))
        test = next(item.region for item in items if item.role is Role.TEST)
        tested.append((test.start, test.stop) if kind == "time_block" else (test.left, test.right))
        assert len(items) == (4 if fold == 1 else 3)  # training on both sides of test and validation
    if kind == "tile":
        assert tested == [(0, 50), (50, 100), (100, 150), (150, 200)]
    else:
        assert tested == [(0, 14), (16, 29), (31, 44), (46, 60)]


@pytest.mark.parametrize(
    ("n", "fractions", "counts"),
    [
        (10, (0.6, 0.2, 0.2), [6, 2, 2]),
        (3, (0.6, 0.2, 0.2), [1, 1, 1]),
        (4, (0.9, 0.05, 0.05), [2, 1, 1]),
        (7, (0.4, 0.3, 0.3), [3, 2, 2]),
    ],
)
def test_fields_are_dealt_by_the_fractions(n: int, fractions: tuple[float, ...], counts: list[int]) -> None:
    facts = {str(i): MovieFacts((9, 30, 30), field=f"f{i}") for i in range(n)}
    roles = list(roles_of(job("field", fractions=fractions), facts).values())
    assert [roles.count(role) for role in (Role.TRAIN, Role.VAL, Role.TEST)] == counts


@pytest.mark.parametrize(
    ("kind", "split", "fault"),
    [
        ("movie", {"folds": 3, "fold": 3}, "split.fold: there is no fold 3"),
        ("movie", {"folds": 4}, "folds need as many"),
        ("tile", {"folds": "each"}, "'each' is for movies"),
        ("random_crop", {"folds": 3}, "have no folds"),
    ],
)
def test_faulty_folds_are_the_users_fault(kind: str, split: dict[str, object], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        split_regions(job(kind, **split), movies((30, 90, 90), roles=kind == "movie"))


@pytest.mark.parametrize("kind", ["movie", "field"])
def test_movies_of_one_field_with_two_roles_are_the_users_fault(kind: str) -> None:
    facts = {name: MovieFacts((9, 30, 30), ROLES[name], field="same") for name in "ab"}
    with pytest.raises(UserError, match="b: shares its field of view with a"):
        split_regions(job(kind), facts)


@pytest.mark.parametrize(("kind", "axis"), [("time_block", "x"), ("tile", "y")])
def test_where_movies_are_cut_one_with_a_role_stays_whole(kind: str, axis: str) -> None:
    facts = {"a": MovieFacts((60, 90, 90)), "b": MovieFacts((40, 80, 70), Role.TEST)}
    config = job(kind, axis=axis, fractions=[0.5, 0.5, 0], order=["val", "train", "test"])
    found = [(item.role, item.region) for item in split_regions(config, facts)]
    assert found[0] == (Role.TEST, Region("b", 0, 40, 0, 0, 80, 70))
    assert [(role, region.movie) for role, region in found[1:]] == [(Role.VAL, "a"), (Role.TRAIN, "a")]
    last = found[2][1]
    assert (last.stop, last.bottom) == (60, 90)  # nothing is left over for a split of no share


def test_a_share_of_nothing_needs_movies_that_are_cut() -> None:
    with pytest.raises(UserError, match="fractions may be 0 where movies are cut"):
        job("field", fractions=[0.5, 0.5, 0])
