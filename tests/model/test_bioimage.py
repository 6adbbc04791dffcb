"""The package is valid, and gives what PyTorch gives from raw frames."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from bioimageio.spec import InvalidDescr, load_description

from tapray.crops.normalise import frame_ranges, normalise
from tapray.model.bioimage import write_bioimage
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import intensity_of, save_tap


@pytest.mark.slow  # the export takes seconds
def test_the_package_gives_the_dense_features_of_raw_frames(tmp_path: Path) -> None:
    net = TapNet("unet-12s2", channels=2)
    initialise(net, torch.Generator().manual_seed(0))
    net(torch.randn(4, 2, 2, 48, 48))  # statistics other than at the start
    write_bioimage(net, tmp_path / "package.zip")
    described = load_description(tmp_path / "package.zip")
    assert not isinstance(described, InvalidDescr), described.validation_summary.format()
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        package.extractall(tmp_path / "open")
    raw, expected = (np.load(tmp_path / "open" / f"{name}.npy") for name in ("frame", "features"))
    steps = {step.id: step.kwargs for step in described.inputs[0].preprocessing}
    scaling = steps["scale_range"]
    percentiles = (scaling.min_percentile, scaling.max_percentile)
    low, high = np.percentile(raw, percentiles, axis=(-2, -1), keepdims=True)
    scaled = ((raw - low) / (high - low + scaling.eps)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        tmp_path / "open" / "features.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"frames": scaled})
    assert found.shape == expected.shape == (1, 32, 32, 48)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert described.inputs[0].description == "raw frames"
    flat = normalise(raw, frame_ranges(raw, "linear"), "linear")
    with torch.no_grad():
        np.testing.assert_array_equal(net.eval().features(torch.from_numpy(flat)[None])[0], expected)


@pytest.mark.slow
def test_the_package_of_a_net_for_square_roots_says_so(tmp_path: Path) -> None:
    net = TapNet("unet-8s2")
    save_tap(net, tmp_path / "model", intensity="sqrt")
    write_bioimage(net, tmp_path / "package.zip", intensity_of(tmp_path / "model"))
    described = load_description(tmp_path / "package.zip")
    assert described.inputs[0].description == "the square roots of raw frames"
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        package.extractall(tmp_path / "open")
    assert "It is to be given: the square roots" in (tmp_path / "open" / "README.md").read_text()
    given, expected = (np.load(tmp_path / "open" / f"{name}.npy") for name in ("frame", "features"))
    raw = given**2
    flat = normalise(raw, frame_ranges(raw, "sqrt"), "sqrt")
    with torch.no_grad():
        found = net.eval().features(torch.from_numpy(flat)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
