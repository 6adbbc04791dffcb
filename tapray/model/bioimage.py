"""The dense features as a bioimage.io model package, for the programs that read those."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tapray.atomic import atomic_write
from tapray.crops.normalise import PERCENTILES, frame_ranges, normalise, transform
from tapray.errors import UserError
from tapray.model.onnx import write_onnx
from tapray.model.tap import FEATURES, TapNet

_SIDES = (64, 96)  # pixels of the test frame
_GIVEN = {"linear": "raw frames", "sqrt": "the square roots of raw frames"}


def write_bioimage(net: TapNet, path: Path, intensity: str = "linear") -> None:
    """Writes a package (zip): raw frames (N, C, H, W) float32 to dense features (N, 32, h, w).

    Frames are normalised by their percentiles within the package. The format has no square root, so a net
    that was trained with `crops.intensity: sqrt` is to be given the frames' square roots, which the package
    says. It holds the net as ONNX, and a test frame with its features as PyTorch computes them.

    Raises:
        UserError: the packages bioimageio.spec, onnx and onnxscript are not installed.
    """
    try:
        from bioimageio.spec import save_bioimageio_package
    except ImportError as error:
        todo = "install the package bioimageio.spec"
        raise UserError(f"cannot be written ({error.name} is not installed)", where=path, todo=todo) from None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_onnx(net, folder / "features.onnx")
        raw = np.random.default_rng(0).gamma(4.0, 50.0, (net.channels, *_SIDES)).astype(np.float32)
        frame = transform(raw, intensity)
        flat = normalise(frame, frame_ranges(frame, "linear"), "linear")
        np.save(folder / "frame.npy", frame[None])
        with torch.no_grad():
            found = net.eval().features(torch.from_numpy(flat)[None, None])[0]
        np.save(folder / "features.npy", found.numpy())
        given = _GIVEN[intensity]
        (folder / "README.md").write_text(_readme(net, given))
        save_bioimageio_package(_description(net, folder, given), output_path=folder / "package.zip")
        atomic_write(path, (folder / "package.zip").read_bytes())


def _description(net: TapNet, folder: Path, given: str) -> Any:
    from bioimageio.spec.common import FileDescr
    from bioimageio.spec.model import v0_5 as spec

    axes, outs = _axes(net)
    low, high = PERCENTILES
    scale = spec.ScaleRangeKwargs(
        axes=[spec.AxisId("y"), spec.AxisId("x")], min_percentile=low, max_percentile=high
    )
    frames = spec.InputTensorDescr(
        id=spec.TensorId("frames"),
        description=given,
        axes=axes,
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=FileDescr(source=folder / "frame.npy"),
        preprocessing=[spec.ScaleRangeDescr(kwargs=scale)],
    )
    features = spec.OutputTensorDescr(
        id=spec.TensorId("features"),
        axes=outs,
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=FileDescr(source=folder / "features.npy"),
    )
    weights = spec.OnnxWeightsDescr(source=folder / "features.onnx", opset_version=_opset(folder))
    return spec.ModelDescr(
        name=f"Time arrow features {net.preset}",
        description="Dense features of single frames, learned by telling the order of frames in time",
        documentation=FileDescr(source=folder / "README.md"),
        inputs=[frames],
        outputs=[features],
        weights=spec.WeightsDescr(onnx=weights),
        cite=[
            spec.CiteEntry(text="Gallusser, Stieber, Weigert 2023", doi=spec.Doi("10.48550/arXiv.2305.05511"))
        ],
    )


def _axes(net: TapNet) -> tuple[list[Any], list[Any]]:
    """Axes of the frames that go in, and of the features that come out."""
    from bioimageio.spec.model import v0_5 as spec

    step, stride = net.backbone.divisor, net.backbone.stride
    size = spec.ParameterizedSize(min=step, step=step)
    axes, outs = (
        [spec.BatchAxis(), spec.ChannelAxis(channel_names=[spec.Identifier(c) for c in names])]
        for names in (
            [f"channel{i}" for i in range(net.channels)],
            [f"feature{i}" for i in range(FEATURES)],
        )
    )
    for name in ("y", "x"):
        own = spec.SizeReference(tensor_id=spec.TensorId("frames"), axis_id=spec.AxisId(name))
        axes.append(spec.SpaceInputAxis(id=spec.AxisId(name), size=size))
        outs.append(spec.SpaceOutputAxis(id=spec.AxisId(name), size=own, scale=float(stride)))
    return axes, outs


def _opset(folder: Path) -> int:
    import onnx

    return int(onnx.load(folder / "features.onnx").opset_import[0].version)


def _readme(net: TapNet, given: str) -> str:
    return f"""# Time arrow features

The feature extractor of a time arrow net ({net.preset}), exported by tapray. Each frame of a movie, scaled
by its {PERCENTILES[0]:g} and {PERCENTILES[1]:g} percentiles, becomes {FEATURES} feature maps at
1/{net.backbone.stride} of its resolution. It is to be given: {given}.

## Validation

The test frame must give the test features. How well a small head tells events by them is measured with
`tapray run`, on movies that neither the net nor the head has seen.
"""
