"""Augmentation is reproducible, alters what it should, and tells nothing of the arrow."""

from __future__ import annotations

import pytest
import torch

from tapray.model.augment import _dihedral, _noise, _resample, augment, roll

MODES = ["light", "paper"]
MODULE = "tapray.model.augment"
# Amounts with which the parts of the paper mode change nothing; those that are each frame's own, and all.
OWN: dict[str, object] = {
    **{"_OWN_ZOOM": (1.0, 1.0), "_OWN_SHIFT": 0.0, "_NOISE": 0.0},
    "_OWN_INTENSITY": ((1.0, 1.0), 0.0),
}
OFF: dict[str, object] = {**OWN, "_BEND": 0.0, "_INTENSITY": ((1.0, 1.0), 0.0)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(n: int, size: int = 16) -> torch.Tensor:
    """Pairs of two equal frames with structure at all places."""
    coarse = torch.randn(n, 1, 5, 5, generator=generator(9))
    frames = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return frames.expand(-1, 2, -1, -1)


def correlation(one: torch.Tensor, other: torch.Tensor) -> list[float]:
    """Of each image (N, h, w) with its partner."""
    pairs = zip(one.flatten(1), other.flatten(1), strict=True)
    return [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]


@pytest.mark.parametrize("mode", ["none", *MODES])
def test_the_generator_decides_everything(mode: str) -> None:
    pairs = smooth(8)
    torch.manual_seed(0)
    one = augment(pairs, mode, generator(1))
    untouched = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), untouched)  # the global generator stays where it was
    assert torch.equal(one, augment(pairs, mode, generator(1)))
    assert one.shape == pairs.shape
    assert one.isfinite().all()
    assert torch.equal(one, augment(pairs, mode, generator(2))) == (mode == "none")


@pytest.mark.parametrize("mode", MODES)
def test_both_frames_are_treated_alike_in_distribution(mode: str) -> None:
    pairs = smooth(12_000)
    first, second = augment(pairs, mode, generator(3)).unbind(1)
    statistics = {
        "mean": lambda x: x.mean(dim=(1, 2)),
        "spread": lambda x: x.std(dim=(1, 2)),
        "brightest": lambda x: x.amax(dim=(1, 2)),
        "left": lambda x: x[..., :8].mean(dim=(1, 2)),
        "top": lambda x: x[:, :8].mean(dim=(1, 2)),
    }
    if mode == "paper":  # light intensities and symmetries leave it as it is
        statistics["fineness"] = lambda x: (x.diff(dim=1) ** 2).mean(dim=(1, 2)) / x.var(dim=(1, 2))
    for name, statistic in statistics.items():
        one, other, before = statistic(first), statistic(second), statistic(pairs[:, 0])
        apart = one - other
        assert apart.abs().max() > 0, name
        assert abs((apart > 1e-6).double().sum() / (apart.abs() > 1e-6).sum() - 0.5) < 0.04, name
        # neither frame is higher, nor further from what it was
        for gap in (apart, (one - before) ** 2 - (other - before) ** 2):
            assert abs(gap.mean() / gap.std()) * len(gap) ** 0.5 < 4, name


@pytest.mark.parametrize("mode", MODES)
def test_augmenting_swapped_pairs_is_swapping_augmented_ones_in_distribution(mode: str) -> None:
    pairs = torch.stack([smooth(4000)[:, 0], smooth(4000)[:, 0].roll(2, -1) * 1.2], dim=1)
    for seed, frame in ((5, 0), (6, 1)):
        here = augment(pairs, mode, generator(seed))[:, frame]
        there = augment(pairs.flip(1), mode, generator(seed + 10))[:, 1 - frame]
        assert float(here.mean()) == pytest.approx(float(there.mean()), abs=0.03)
        assert float(here.std()) == pytest.approx(float(there.std()), rel=0.05)


def test_light_is_a_symmetry_of_the_square_the_same_for_both_frames() -> None:
    pairs = torch.rand(200, 2, 6, 6, generator=generator())
    out = augment(pairs, "light", generator(1))
    found = set()
    for before, after in zip(pairs, out, strict=True):
        turns = {
            (k, mirrored): torch.rot90(before.flip(-1) if mirrored else before, k, (1, 2))
            for k in range(4)
            for mirrored in (False, True)
        }
        fits = [key for key, turned in turns.items() if min(correlation(turned, after)) > 0.999]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) == 8


def test_the_paper_mode_moves_most_frames_but_not_all() -> None:
    pairs = smooth(400)
    out = augment(pairs, "paper", generator(1))
    alike = torch.tensor(correlation(pairs.flatten(0, 1), out.flatten(0, 1)))
    assert 0.02 < (alike > 0.99).double().mean() < 0.3
    assert (alike < 0.7).double().mean() > 0.2


def test_swaps_are_half_of_the_pairs_and_said_truly() -> None:
    pairs = torch.arange(2.0).view(1, 2, 1, 1).expand(4000, -1, 3, 3)
    out, first = roll(pairs, generator())
    assert torch.equal(out[:, 0, 0, 0] == 1, first == 1)
    assert torch.equal(out.sum(dim=1), pairs.sum(dim=1))
    assert float(first.double().mean()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_longer_crops_are_rolled_and_the_first_frame_is_named(frames: int) -> None:
    crops = torch.arange(float(frames)).view(1, frames, 1, 1).expand(6000, -1, 3, 3)
    out, first = roll(crops, generator())
    order = out[:, :, 0, 0].long()
    assert (order.gather(1, first[:, None]) == 0).all()
    assert torch.equal((order - order[:, :1]) % frames, torch.arange(frames).expand(6000, -1))
    shares = torch.bincount(first, minlength=frames).double() / len(first)
    assert shares.tolist() == pytest.approx([1 / frames] * frames, abs=0.04)


def switch_off(monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
    """Parts of the paper mode are drawn as ever, but change nothing."""
    for part in parts:
        if part == "_turn":
            monkeypatch.setattr(f"{MODULE}._turn", lambda batch, _: torch.eye(2).expand(batch, 2, 2))
        else:
            monkeypatch.setattr(f"{MODULE}.{part}", OFF[part])


def assert_near(one: torch.Tensor, other: torch.Tensor, apart: float) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=apart)


def assert_share(happened: torch.Tensor, expected: float) -> None:
    """So many of them, within four standard deviations of the binomial distribution."""
    margin = 4 * (expected * (1 - expected) / len(happened)) ** 0.5
    assert float(happened.double().mean()) == pytest.approx(expected, abs=margin)


def assert_uniform(values: torch.Tensor, low: float, high: float) -> None:
    """All within the range, its ends reached, in between as many everywhere (Kolmogorov and Smirnov)."""
    places = ((values.double().flatten() - low) / (high - low)).sort().values
    assert -1e-4 < float(places[0]) < 0.02
    assert 0.98 < float(places[-1]) < 1 + 1e-4
    even = (torch.arange(len(places)) + 0.5) / len(places)
    assert float((places - even).abs().max()) * len(places) ** 0.5 < 2


def assert_unrelated(columns: torch.Tensor) -> None:
    """No two columns of (n, k) go together."""
    related = torch.corrcoef(columns.T) - torch.eye(columns.shape[1])
    assert float(related.abs().max()) * len(columns) ** 0.5 < 4.5


def sources(n: int, frames: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the pixels of augmented crops come from, in half crops from the centre.

    The crops have two channels, which hold each pixel's own x and y: interpolated, they name a place.

    Returns:
        (n, frames, 2, size, size), and (2, size, size), the places of the pixels themselves.
    """
    along = (2 * torch.arange(size) + 1) / size - 1
    places = torch.stack(torch.meshgrid(along, along, indexing="xy"))
    planes = places.repeat(n, frames, 1, 1)
    return _resample(planes, frames, generator(seed)).view(n, frames, 2, size, size), places


def slopes(found: torch.Tensor) -> torch.Tensor:
    """(..., 2, 2) from steps in a crop to steps where it comes from, at the centre."""
    size = found.shape[-1]
    mid = size // 2
    across = found[..., mid, mid + 1] - found[..., mid, mid - 1]
    down = found[..., mid + 1, mid] - found[..., mid - 1, mid]
    return torch.stack([across, down], -1) * size / 4


def test_frames_that_are_alike_stay_so_but_for_what_is_each_frames_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch_off(monkeypatch, *OWN)
    pairs = smooth(2000)
    first, second = augment(pairs, "paper", generator(1)).unbind(1)
    assert_near(first, second, 1e-5)
    changed = (first - pairs[:, 0]).abs().amax(dim=(1, 2)) > 1e-4
    assert_share(changed, 1 - 0.5**5)  # mirrored in x and in y, turned, bent, other intensities


@pytest.mark.parametrize("part", OWN)
def test_what_is_each_frames_own_tells_the_frames_of_half_of_the_pairs_apart(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, *(other for other in OWN if other != part))
    first, second = augment(smooth(2000), "paper", generator(2)).unbind(1)
    assert_share((first - second).abs().amax(dim=(1, 2)) > 1e-5, 0.5)


def test_one_pair_of_256_escapes_all_eight_parts_of_the_paper_mode() -> None:
    pairs = smooth(20_000, 8)
    out = augment(pairs, "paper", generator(3))
    assert_share((out - pairs).abs().amax(dim=(1, 2, 3)) < 1e-4, 0.5**8)


def test_pairs_are_mirrored_turned_by_any_angle_and_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, "_OWN_ZOOM", "_OWN_SHIFT", "_BEND")
    found, _ = sources(2000, 2, 17)
    assert_near(found[:, 0], found[:, 1], 1e-5)
    assert float(found[:, 0, :, 8, 8].abs().max()) < 1e-5  # about the centre
    turn = slopes(found[:, 0])
    zoom = turn.det().abs() ** -0.5
    assert_near(turn @ turn.mT * zoom[:, None, None] ** 2, torch.eye(2).expand(2000, 2, 2), 1e-4)
    mirrored, turned = turn.det() < 0, (zoom - 1).abs() > 1e-4
    assert_share(mirrored, 0.5)
    assert_share(turned, 0.5)
    assert_uniform(zoom[turned], 0.8, 1.25)
    angle = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])
    assert_uniform(angle[turned], -torch.pi, torch.pi)
    assert float(angle[~turned].sin().abs().max()) < 1e-4
    assert_share(angle[~turned].cos() < 0, 0.5)  # mirrored in x
    assert_share(mirrored[~turned], 0.5)
    assert_unrelated(torch.stack([zoom, angle.cos(), angle.sin()], 1)[turned])


def test_frames_of_half_of_the_pairs_are_shifted_and_scaled_each_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch_off(monkeypatch, "_turn", "_BEND")
    found, _ = sources(2000, 3, 17)
    slope, moved = slopes(found), found[..., 8, 8] / 2
    zoom = 1 / slope[..., 0, 0]
    assert_near(slope * zoom[..., None, None], torch.eye(2).expand(2000, 3, 2, 2), 1e-4)
    chosen = (zoom - 1).abs().amax(dim=1) > 1e-4
    assert_share(chosen, 0.5)
    assert_uniform(zoom[chosen], 0.9, 10 / 9)
    assert_uniform(moved[chosen], -0.03, 0.03)
    assert float(moved[~chosen].abs().max()) < 1e-5
    assert_unrelated(torch.cat([zoom, moved.flatten(1)], 1)[chosen])


def test_half_of_the_pairs_are_bent_between_five_by_five_places_by_five_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch_off(monkeypatch, "_turn", "_OWN_ZOOM", "_OWN_SHIFT")
    found, places = sources(1000, 1, 33)
    bent = (found[:, 0] - places) * 33 / 2  # pixels
    knots = bent[..., 8:25:8, 8:25:8]  # those inside: what comes from beyond the border is reflected
    chosen = knots.abs().amax(dim=(1, 2, 3)) > 1e-3
    assert_share(chosen, 0.5)
    assert_uniform(knots[chosen], -5, 5)
    assert_unrelated(knots[chosen].flatten(1))
    assert float(bent[~chosen].abs().max()) < 1e-3
    between = (knots[..., :-1, :] + knots[..., 1:, :]) / 2
    assert_near(bent[..., 12:21:8, 8:25:8], between, 1e-3)


def test_half_of_the_pairs_have_noise_of_up_to_a_twentieth_in_every_pixel() -> None:
    noise = _noise(torch.zeros(2000, 2, 9, 9), generator())
    amount = noise.amax(dim=(1, 2, 3))  # nearly: of 162 draws
    assert_share(amount > 0, 0.5)
    assert_uniform(amount[amount > 0], 0, 0.05)
    parts = (noise[amount > 0] / amount[amount > 0][:, None, None, None]).flatten(1)
    assert float(parts.min()) >= 0
    assert float(parts.amin(dim=1).mean()) < 0.02
    assert float(parts.mean()) == pytest.approx(0.5, abs=0.02)
    assert_unrelated(parts[:, [0, 1, 80, 81, 161]])  # neighbours, and the other frame


def intensities(mode: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of each frame (n, 2), read off crops that look the same however they are turned."""
    pairs = torch.zeros(n, 2, 4, 4)
    pairs[..., 1:3, 1:3] = 1
    out = augment(pairs, mode, generator(4))
    shifts = out[..., 0, 0]
    return out[..., 1, 1] - shifts, shifts


@pytest.mark.parametrize(
    ("part", "lowest", "highest", "shift"),
    [("_OWN_INTENSITY", 9 / 10, 10 / 9, 0.05), ("_INTENSITY", 4 / 5, 5 / 4, 0.1)],
)
def test_intensities_of_half_of_the_pairs_are_scaled_and_shifted(
    part: str, lowest: float, highest: float, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of each frame for itself, or of both alike."""
    switch_off(monkeypatch, "_NOISE", *({"_OWN_INTENSITY", "_INTENSITY"} - {part}))
    monkeypatch.setattr(f"{MODULE}._resample", lambda planes, *_: planes)
    scales, shifts = intensities("paper", 2000)
    if part == "_INTENSITY":
        assert_near(scales[:, 0], scales[:, 1], 1e-5)
        assert torch.equal(shifts[:, 0], shifts[:, 1])
        scales, shifts = scales[:, :1], shifts[:, :1]
    chosen = (shifts != 0).all(dim=1)
    assert_share(chosen, 0.5)
    assert_uniform(scales[chosen], lowest, highest)
    assert_uniform(shifts[chosen], -shift, shift)
    assert torch.equal(scales[~chosen], torch.ones_like(scales[~chosen]))
    assert not shifts[~chosen].any()
    assert_unrelated(torch.cat([scales, shifts], 1)[chosen])


def test_the_light_mode_scales_and_shifts_pairs_and_frames_with_a_coin_for_each() -> None:
    scales, shifts = intensities("light", 4000)
    for found, both, own in ((scales - 1, 0.3, 0.1), (shifts, 0.2, 0.1)):
        apart = found[:, 0] - found[:, 1]
        alike = apart.abs() < 1e-6
        assert_share(alike, 0.5)
        alone = found[alike, 0]
        assert_share(alone.abs() > 1e-6, 0.5)
        assert_uniform(alone[alone.abs() > 1e-6], -both, both)
        assert 1.8 * own < float(apart.abs().max()) <= 2 * own + 1e-6
        assert float(apart[~alike].std()) == pytest.approx(own * (2 / 3) ** 0.5, rel=0.05)
    untouched = ((scales - 1).abs() + shifts.abs()).amax(dim=1) < 1e-6
    assert_share(untouched, 0.5**4)


def test_the_eight_symmetries_are_as_likely_and_the_same_for_both_frames() -> None:
    pairs = torch.arange(9.0).view(1, 1, 3, 3).expand(4000, 2, 3, 3)
    first, second = _dihedral(pairs, generator()).unbind(1)
    assert torch.equal(first, second)
    kinds, which = first.flatten(1).unique(dim=0, return_inverse=True)
    assert len(kinds) == 8
    for kind in range(8):
        assert_share(which == kind, 1 / 8)
