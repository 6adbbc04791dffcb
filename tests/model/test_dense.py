"""Whole frames by tiles: no seams, and nothing is seen from beyond the halo."""

from __future__ import annotations

import pytest
import torch

import tapray.model.dense
from tapray.model.backbones import PRESETS
from tapray.model.dense import dense_features, halo, reach
from tapray.model.tap import TapNet, freeze, initialise


def net_of(preset: str) -> TapNet:
    net = TapNet(preset)
    initialise(net, torch.Generator().manual_seed(0))
    freeze(net)
    return net


@pytest.mark.parametrize("preset", ["unet-8s2", "unet-16", "resnet-fpn", "convnext"])
def test_tiles_leave_no_seams(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, frame = net_of(preset), torch.randn(150, 203, generator=torch.Generator().manual_seed(1))
    found = []
    for tile in (1000, 64):
        monkeypatch.setattr(tapray.model.dense, "TILE", tile)
        backbone = net.backbone
        found.append(dense_features(net.features, frame, backbone.stride, backbone.divisor, halo(preset)))
    stride = net.backbone.stride
    assert found[0].shape == (32, -(-150 // stride), -(-203 // stride))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("preset", [*PRESETS])
def test_no_feature_depends_on_what_lies_beyond_the_halo(preset: str) -> None:
    """The gradient of a feature by the pixels is 0 there, and not 0 everywhere within."""
    net, far = net_of(preset), halo(preset)
    divisor, stride = net.backbone.divisor, net.backbone.stride
    side = -(-(2 * far + 4 * divisor) // divisor) * divisor
    x = torch.rand(1, 1, side, divisor, requires_grad=True)
    reached = 0
    for place in {side // 2 // stride, side // 2 // stride + divisor // stride - 1}:
        features = net.backbone.dense(x)
        (slope,) = torch.autograd.grad(features[..., place, :].square().sum(), x)
        rows = torch.nonzero(slope.abs().sum(dim=(0, 1, 3))).flatten()
        first, last = place * stride, (place + 1) * stride - 1
        assert first - int(rows.min()) <= far
        assert int(rows.max()) - last <= far
        reached = max(reached, first - int(rows.min()), int(rows.max()) - last)
    assert reached > 0.3 * far


@pytest.mark.parametrize("preset", ["unet-12s2", "resnet-fpn"])
def test_a_crop_between_two_places_of_its_frame_depends_on_nothing_beyond_its_reach(preset: str) -> None:
    net, far, size = net_of(preset), reach(preset), 48
    divisor, stride = net.backbone.divisor, net.backbone.stride
    middle = -(-(far + divisor) // divisor) * divisor
    x = torch.rand(1, 1, 2 * middle + 4 * divisor, divisor, requires_grad=True)
    beyond = []
    for y in range(middle, middle + divisor):
        features = net.backbone.dense(x)[..., y // stride : y // stride + size // stride, :]
        (slope,) = torch.autograd.grad(features.square().sum(), x)
        rows = torch.nonzero(slope.abs().sum(dim=(0, 1, 3))).flatten()
        beyond.append(max(y - int(rows.min()), int(rows.max()) - (y + size - 1)))
    assert max(beyond) <= far
    assert max(beyond) > 0.3 * far
