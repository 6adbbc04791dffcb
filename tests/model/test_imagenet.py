"""The ImageNet arm: weights from disk alone, and one line where they are not what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tapray.errors import UserError
from tapray.model.encoders import difference
from tapray.model.imagenet import ImageNet
from tapray.model.weights import weights_digest

torchvision = pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 of chance, as torch saves it."""
    path = tmp_path_factory.mktemp("imagenet") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def test_frames_become_maps_of_the_second_stage(weights: Path, tmp_path: Path) -> None:
    net = ImageNet(weights)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    pairs = torch.rand(3, 2, 48, 48)
    found = net(pairs)
    assert found.shape == (3, 2, 128, 12, 12)
    torch.testing.assert_close(net(pairs.flip(1)), found.flip(1))
    channels = torch.stack([pairs, pairs], dim=2)
    torch.testing.assert_close(net(channels), found)
    save_file(torch.load(weights, weights_only=True), tmp_path / "w.safetensors")
    assert weights_digest(ImageNet(tmp_path / "w.safetensors")) == weights_digest(net)


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_other_files_are_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="not the weights of a ResNet-18") as raised:
        ImageNet(path)
    assert "\n" not in str(raised.value)


def test_the_difference_is_of_the_second_frame_alone() -> None:
    pairs = torch.rand(2, 2, 8, 8)
    found = difference(pairs)
    assert found.shape == (2, 2, 1, 8, 8)
    assert found[:, 0].abs().max() == 0
    torch.testing.assert_close(found[:, 1, 0], pairs[:, 1] - pairs[:, 0])
    assert difference(torch.rand(2, 2, 3, 8, 8)).shape == (2, 2, 3, 8, 8)
