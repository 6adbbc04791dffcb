"""Weights on disk: tensors only (safetensors), beside a small JSON description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tapray.atomic import atomic_folder
from tapray.errors import UserError
from tapray.model.tap import TapNet


def save_tap(net: TapNet, folder: Path, **facts: Any) -> None:
    """Writes a TAP model folder, whole or not at all: tap.json and tap.safetensors."""
    with atomic_folder(folder) as beside:
        save_file(contiguous(net.state_dict()), beside / "tap.safetensors")
        (beside / "tap.json").write_text(
            json.dumps({"preset": net.preset, "channels": net.channels, **facts}, indent=1, sort_keys=True)
        )


def load_tap(folder: Path) -> TapNet:
    """Reads a folder of `save_tap`.

    Raises:
        UserError: the folder is not such a model, or its tensors do not fit.
    """
    try:
        told = json.loads((folder / "tap.json").read_text())
        net = TapNet(told["preset"], told.get("channels", 1))
        net.load_state_dict(load_file(folder / "tap.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, UserError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"not a readable TAP model ({reason})", where=folder) from None
    return net


def intensity_of(folder: Path) -> str:
    """How frames are read for the net of a model folder (`crops.intensity`); linear where it does not say."""
    for path in (folder / "encoder" / "tap.json", folder / "tap.json"):
        if path.exists():
            return str(json.loads(path.read_text()).get("intensity", "linear"))
    return "linear"


def under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose name begins with `name` and a dot, by the rest of it."""
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}


def weights_digest(net: nn.Module) -> str:
    """sha256 over names and values of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As files of tensors want them: on the CPU, each in memory of its own order."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
