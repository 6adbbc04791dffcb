"""Model folders of the published code (weigertlab/tarrow): read and written as tensors only.

Such a folder holds model_kwargs.yaml, which names the architecture, and model_state.pt. Of its architectures
the published one is known here: backbone `unet`, projection `minimal_batchnorm`, symmetric head `minimal`,
two frames (arXiv 2305.05511, section 2), which is the preset `unet-32`.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
import yaml

from tapray.atomic import atomic_folder
from tapray.errors import UserError
from tapray.model.tap import FEATURES, TapNet
from tapray.model.weights import load_tap

PRESET = "unet-32"
_ARCHITECTURE: dict[str, Any] = {
    **{"backbone": "unet", "projection_head": "minimal_batchnorm", "classification_head": "minimal"},
    **{"symmetric": True, "n_frames": 2, "n_features": FEATURES},
}
# Of the published code, for keys that a folder does not give.
_DEFAULTS: dict[str, Any] = {**_ARCHITECTURE, "symmetric": False, "n_features": 16}
# How the parts of a parameter's name are called here and there.
_PARTS = [
    *((f"backbone.down.{i}.", f"backbone.l_conv.{i}.conv_block.") for i in range(4)),
    *((f"backbone.up.{i}.", f"backbone.r_conv.{i}.conv_block.") for i in range(3)),
    ("backbone.head.", "backbone.head."),
    ("projection.", "projection_head.layers."),
    *((f"arrow.{i}.", f"classification_head.layers.{i}.layers.0.") for i in range(2)),
    ("logit.", "classification_head.head.1.layers.0."),
]
_MAPS = {"local": "L", "shared": "G"}


def their_name(name: str) -> str:
    """The name that the published code gives to a parameter or buffer of the preset `unet-32`."""
    ours, theirs = next(part for part in _PARTS if name.startswith(part[0]))
    first, _, rest = name.removeprefix(ours).partition(".")
    return f"{theirs}{_MAPS.get(first, first)}.{rest}" if rest else theirs + first


def read_tarrow(folder: Path) -> TapNet:
    """Reads a model folder of the published code.

    Raises:
        UserError: a file is missing or damaged, holds more than tensors, or is of another architecture.
    """
    told, state = folder / "model_kwargs.yaml", folder / "model_state.pt"
    try:
        given = yaml.safe_load(told.read_text())
        theirs = torch.load(state, map_location="cpu", weights_only=True)
    except (OSError, ValueError, EOFError, RuntimeError, yaml.YAMLError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"not a readable tarrow model ({reason})", where=folder) from None
    if not isinstance(given, dict) or not isinstance(theirs, dict):
        raise UserError("not a readable tarrow model (no mapping)", where=folder)
    for key, value in _ARCHITECTURE.items():
        if (own := given.get(key, _DEFAULTS[key])) != value:
            todo = "only the published U-Net with its symmetric head can be read"
            raise UserError(f"{key} is {own!r}, not {value!r}", where=told, todo=todo)
    channels = given.get("n_input_channels", 1)
    if not isinstance(channels, int) or channels < 1:
        raise UserError(f"n_input_channels is {channels!r}, not {1!r} or more", where=told)
    net = TapNet(PRESET, channels)
    names = {name: their_name(name) for name in net.state_dict()}
    if set(names.values()) != set(theirs):
        other = sorted(set(names.values()) ^ set(theirs))[0]
        raise UserError(f"its tensors do not fit the architecture ('{other}')", where=state)
    try:
        net.load_state_dict({ours: theirs[name] for ours, name in names.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"its tensors do not fit the architecture ({reason})", where=state) from None
    return net


def read_net(folder: Path) -> TapNet:
    """The net of a model folder: of pretraining, of the published code, or the encoder of a detector.

    Raises:
        UserError: as `load_tap` and `read_tarrow` do.
    """
    if (folder / "model_kwargs.yaml").exists():
        return read_tarrow(folder)
    return load_tap(folder / "encoder" if (folder / "encoder").is_dir() else folder)


def given_weights(folder: Path, preset: str, channels: int) -> TapNet:
    """`read_net`, of a net that must be of that preset and number of channels.

    Raises:
        UserError: as `read_net` does, or it is of others.
    """
    net = read_net(folder)
    if net.preset != preset:
        todo = f"set pretrain.preset: {net.preset}"
        raise UserError(f"is of preset '{net.preset}', not '{preset}'", where=folder, todo=todo)
    if net.channels != channels:
        raise UserError(f"sees {net.channels} channel(s), the movies have {channels}", where=folder)
    return net


def write_tarrow(net: TapNet, folder: Path) -> None:
    """Writes a model folder that the published code reads (`from_folder(..., from_state_dict=True)`).

    Raises:
        UserError: the net is not of the preset `unet-32`.
    """
    if net.preset != PRESET:
        todo = f"pretrain with pretrain.preset: {PRESET}"
        raise UserError(f"the published code knows no preset '{net.preset}'", where=folder, todo=todo)
    state = {their_name(name): value.detach().cpu() for name, value in net.state_dict().items()}
    with atomic_folder(folder) as beside:
        (beside / "model_kwargs.yaml").write_text(
            yaml.safe_dump({**_ARCHITECTURE, "n_input_channels": net.channels, "outdir": None})
        )
        torch.save(state, beside / "model_state.pt")
