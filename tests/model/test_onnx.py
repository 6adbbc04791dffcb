"""The ONNX file gives what PyTorch gives, for any number of frames and any size it allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tapray.model.backbones import PRESETS
from tapray.model.onnx import write_onnx
from tapray.model.tap import TapNet, freeze, initialise


@pytest.mark.slow  # the export takes seconds
@pytest.mark.parametrize("preset", [*PRESETS])
def test_dense_features_are_those_of_pytorch(preset: str, tmp_path: Path) -> None:
    net = TapNet(preset)
    initialise(net, torch.Generator().manual_seed(0))
    net(torch.randn(4, 2, 48, 48))  # statistics other than at the start
    freeze(net)
    write_onnx(net, tmp_path / "features.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "features.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 48, 48), (3, 1, 16, 32), (2, 1, 96, 208)):
        frames = torch.randn(shape)
        expected = net.features(frames)[:, 0].numpy()
        (found,) = session.run(None, {"frames": frames.numpy()})
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
