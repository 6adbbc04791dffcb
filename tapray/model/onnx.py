"""The dense features as an ONNX file, for programs without PyTorch."""

from __future__ import annotations

import logging
import warnings
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from tapray.atomic import atomic_write
from tapray.errors import UserError
from tapray.model.tap import TapNet, freeze


def write_onnx(net: TapNet, path: Path) -> None:
    """Writes the feature extractor of a net: `frames` (N, C, H, W) float32, normalised as for training, to
    `features` (N, 32, h, w).

    N, H and W are free, H and W multiples of the backbone's divisor: the file holds no padding.

    Raises:
        UserError: the packages onnx and onnxscript are not installed.
    """
    module = freeze(deepcopy(nn.Sequential(net.backbone, net.projection)))  # as TapNet.features, of a frame
    step = net.backbone.divisor
    sides = {axis: step * torch.export.Dim(name, min=1) for axis, name in ((2, "rows"), (3, "columns"))}
    example = torch.zeros(2, net.channels, 2 * step, 3 * step)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of packages that are not needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["frames"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("n"), **sides},),
            )
    except ImportError as error:
        todo = "install the packages onnx and onnxscript"
        raise UserError(f"cannot be written ({error.name} is not installed)", where=path, todo=todo) from None
    assert program is not None  # it is, where dynamo is asked for
    atomic_write(path, program.model_proto.SerializeToString())
