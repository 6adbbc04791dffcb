"""The net: permutation-equivariant, of the published size, frozen when frozen."""

from __future__ import annotations

import pytest
import torch

from tapray.errors import UserError
from tapray.model.backbones import PRESETS, build_backbone
from tapray.model.tap import FEATURES, EquivariantBlock, TapNet, freeze, initialise, initialise_paper


def net(preset: str = "unet-8s2", seed: int = 0) -> TapNet:
    made = TapNet(preset)
    initialise(made, torch.Generator().manual_seed(seed))
    return made


def pairs(n: int = 3, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("training", [False, True])
def test_swapping_the_frames_swaps_the_logits(preset: str, training: bool) -> None:
    # in double, where no more than the order of summation within a batch can tell the frames apart
    model, x = net(preset).double().train(training), pairs().double()
    with torch.no_grad():
        logits, features = model(x)
        turned, turned_features = model(x.flip(1))
    torch.testing.assert_close(turned, logits.flip(1), atol=1e-10, rtol=0)
    torch.testing.assert_close(turned_features, features.flip(1), atol=1e-10, rtol=0)
    assert (logits[:, 0] - logits[:, 1]).abs().min() > 1e-4  # there is something to swap


@pytest.mark.parametrize("preset", PRESETS)
def test_in_single_precision_the_last_bit_at_most_differs(preset: str) -> None:
    model, x = net(preset).eval(), pairs(8)
    with torch.no_grad():
        logits, features = model(x)
        turned, turned_features = model(x.flip(1))
    assert torch.equal(turned_features, features.flip(1))
    torch.testing.assert_close(turned, logits.flip(1), atol=1e-6, rtol=1e-6)


def test_a_block_commutes_with_every_permutation() -> None:
    block, x = EquivariantBlock(4, 5).eval(), torch.randn(2, 3, 4, 6, 7)
    order = [2, 0, 1]
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])
    assert block(x).shape == (2, 3, 5, 6, 7)


def test_a_block_is_its_formula() -> None:
    block, x = EquivariantBlock(4, 5, norm=False), torch.randn(2, 3, 4)
    mean = block.shared(x).mean(dim=1)
    for s in range(3):
        torch.testing.assert_close(block(x)[:, s], block.local(x[:, s]) + mean)


def test_the_published_preset_has_the_published_size() -> None:
    assert sum(p.numel() for p in TapNet("unet-32").parameters()) == pytest.approx(1.96e6, rel=0.005)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [16, 24, 17])
def test_dense_features_keep_the_resolution_of_the_stem(preset: str, size: int) -> None:
    model = net(preset).eval()
    stride = model.backbone.stride
    with torch.no_grad():
        _, features = model(pairs(1, size))
    assert features.shape == (1, 2, FEATURES, -(-size // stride), -(-size // stride))


def test_an_unknown_preset_is_the_users_fault() -> None:
    with pytest.raises(UserError, match="unknown preset 'unet-99'; use one of unet-32"):
        build_backbone("unet-99")


@pytest.mark.parametrize("draw", [initialise, initialise_paper])
def test_a_seed_decides_all_weights(draw: object) -> None:
    nets = []
    for seed in (0, 0, 1):
        torch.rand(7)  # whatever the global generator did
        made = TapNet("unet-8s2")
        draw(made, torch.Generator().manual_seed(seed))
        nets.append(made.state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    drawn = [name for name in nets[0] if nets[0][name].ndim > 1]
    assert not any(torch.equal(nets[0][name], nets[2][name]) for name in drawn)


def test_only_the_published_baseline_draws_batch_norm_scales() -> None:
    plain, paper = TapNet("unet-8s2"), TapNet("unet-8s2")
    initialise(plain, torch.Generator().manual_seed(0))
    initialise_paper(paper, torch.Generator().manual_seed(0))
    for (name, a), b in zip(plain.named_modules(), paper.modules(), strict=True):
        if "Norm" in type(a).__name__:
            assert (a.weight == 1).all(), name
            assert b.weight.std() > 0.5, name
            assert (a.running_mean == 0).all(), name
            assert (a.running_var == 1).all(), name


def test_frozen_is_frozen() -> None:
    model = net()
    model(pairs())  # leaves statistics behind
    freeze(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits, features = model(pairs(seed=1))
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert not logits.requires_grad
    assert not features.requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
