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
    flat = normalise(raw, frame_ranges(raw, "linear"), "linear")
    with torch.no_grad():
        np.testing.assert_array_equal(net.eval().features(torch.from_numpy(flat)[None])[0], expected)
