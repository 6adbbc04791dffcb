"""Backbones by name.

A backbone is added here: a function of the number of channels that returns a `Backbone`.
"""

from __future__ import annotations

from collections.abc import Callable

from tapray.errors import UserError
from tapray.model.backbones.base import Backbone
from tapray.model.backbones.pyramid import convnext, resnet
from tapray.model.backbones.unet import UNet

PRESETS: dict[str, Callable[[int], Backbone]] = {
    # published, about 1.96 M parameters
    "unet-32": lambda channels: UNet(32, 32, channels=channels, padding_mode="replicate"),
    "unet-16": lambda channels: UNet(16, 32, channels=channels),
    "unet-16s2": lambda channels: UNet(16, 32, channels=channels, stem_stride=2),
    "unet-12s2": lambda channels: UNet(12, 32, channels=channels, stem_stride=2),
    "unet-8s2": lambda channels: UNet(8, 32, channels=channels, stem_stride=2),
    "resnet-fpn": lambda channels: resnet((24, 48, 96), 32, channels),
    "convnext": lambda channels: convnext((24, 48, 96), 32, channels),
}


def build_backbone(preset: str, channels: int = 1) -> Backbone:
    """The backbone of that preset name for frames of so many channels, freshly initialised.

    Raises:
        UserError: the name is not a preset.
    """
    if preset not in PRESETS:
        raise UserError(
            f"unknown preset '{preset}'", where="pretrain.preset", todo=f"use one of {', '.join(PRESETS)}"
        )
    return PRESETS[preset](channels)
