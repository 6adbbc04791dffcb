"""Augmentation is reproducible, alters what it should, and tells nothing of the arrow."""

from __future__ import annotations

import pytest
import torch

from tapray.model.augment import augment, roll

MODES = ["light", "paper"]


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
