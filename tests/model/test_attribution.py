"""Attribution is what its formulas say, and the tiles that a frame is seen in leave no seam."""

from __future__ import annotations

import pytest
import torch

from tapray.model import dense
from tapray.model.attribution import attribution, evidence, grad_cam, integrated_gradients, occlusion
from tapray.model.dense import dense_features, halo
from tapray.model.tap import TapNet, initialise

PRESET = "unet-8s2"


@pytest.fixture(scope="module")
def net() -> TapNet:
    made = TapNet(PRESET)
    initialise(made, torch.Generator().manual_seed(0))
    return made.eval()


def crops(n: int, side: int) -> torch.Tensor:
    return torch.rand(n, 2, side, side, generator=torch.Generator().manual_seed(1))


def test_grad_cam_is_the_mean_gradient_times_the_features(net: TapNet) -> None:
    features = net.features(crops(2, 32)).detach().requires_grad_()
    net.arrow_logits(features)[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    weights = features.grad.mean(dim=(-2, -1), keepdim=True)
    expected = (weights * features).sum(dim=2).clamp(min=0)
    torch.testing.assert_close(grad_cam(net, features), expected.detach())


def test_evidence_adds_up_to_the_difference_of_the_logits(net: TapNet) -> None:
    for frames in (2, 3):
        features = net.features(torch.rand(2, frames, 32, 32))
        logits = net.arrow_logits(features)
        found = evidence(net, features)
        assert found.shape == (2, 16, 16)
        expected = logits[:, 0] - logits[:, 1:].mean(dim=1)
        torch.testing.assert_close(found.mean(dim=(1, 2)), expected.detach())
    swapped = evidence(net, features[:, :2].flip(1))
    torch.testing.assert_close(swapped, -evidence(net, features[:, :2]))


def test_what_tiles_show_is_what_the_whole_frame_shows(net: TapNet, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.rand(2, 150, 170, generator=torch.Generator().manual_seed(2))
    maps = []
    for tile in (512, 32, 64):
        monkeypatch.setattr(dense, "TILE", tile)
        backbone = net.backbone
        features = [
            dense_features(net.features, frame, backbone.stride, backbone.divisor, halo(PRESET))
            for frame in frames
        ]
        pair = torch.stack(features)[None]
        maps.append((evidence(net, pair), grad_cam(net, pair)))
    assert maps[0][0].shape == (1, 75, 85)
    assert maps[0][1].shape == (1, 2, 75, 85)
    for other in maps[1:]:
        for own, first in zip(other, maps[0], strict=True):
            assert first.abs().max() > 0
            torch.testing.assert_close(own, first, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_add_up_to_what_the_evidence_does(net: TapNet) -> None:
    given = crops(3, 32)
    found = integrated_gradients(net, given)
    assert found.shape == given.shape
    whole = [evidence(net, net.features(own)).mean(dim=(1, 2)) for own in (given, torch.zeros_like(given))]
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), whole[0] - whole[1], rtol=0.1, atol=0.02)


def test_occlusion_sees_what_is_hidden(net: TapNet) -> None:
    given = crops(2, 32)
    found = occlusion(net, given)
    assert found.shape == given.shape
    black = given.clone()
    black[:, 1, :16] = 0  # nothing is lost where there is nothing to hide
    assert occlusion(net, black)[:, 1, :8].abs().max() < 1e-5 < found.abs().max()


def test_channels_are_summed_and_crops_have_their_own_size() -> None:
    net = TapNet(PRESET, 2).eval()
    given = torch.rand(1, 2, 2, 32, 32)
    for way in (integrated_gradients, occlusion):
        assert way(net, given).shape == (1, 2, 32, 32)
    for shown in attribution(net, given.numpy()).values():
        assert shown.shape == (1, 32, 32)
        assert 0 <= shown.min() <= shown.max() <= 1


def test_a_map_stays_in_place_where_the_stem_takes_more_than_the_frame_has(net: TapNet) -> None:
    given = crops(1, 33).numpy()
    with torch.no_grad():
        places = evidence(net, net.features(torch.from_numpy(given))).abs()[0]
    assert places.shape == (17, 17)
    shown = torch.from_numpy(attribution(net, given)["evidence"][0])
    assert shown.shape == (33, 33)
    between = 0.75 * places[0, :16] + 0.25 * places[0, 1:]  # bilinear, two pixels a place
    torch.testing.assert_close(shown[0, 1::2] / shown[0, 0], between / places[0, 0], rtol=1e-4, atol=1e-4)
