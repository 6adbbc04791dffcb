"""The encoders of a study's arms: pretrained, random, and those trained on the labels."""

from __future__ import annotations

from pathlib import Path

import torch

from tapray.config import Init
from tapray.model.tap import TapNet, initialise, initialise_paper
from tapray.model.weights import load_tap


def build_encoder(init: Init, draw: int, preset: str, channels: int, model: Path) -> TapNet:
    """The encoder an arm starts from.

    Args:
        draw: which of the independent random encoders; ignored for pretrained ones.
        preset, channels: network of the random encoders, the same as the pretrained one's.
        model: folder of the pretrained net.
    """
    if init in (Init.TAP, Init.FINE_TUNE):
        return load_tap(model)
    net = TapNet(preset, channels)
    generator = torch.Generator().manual_seed(1_000_003 * (draw + 1))
    (initialise_paper if init is Init.RANDOM_PAPER else initialise)(net, generator)
    return net


def draws(init: Init, random_draws: int) -> int:
    """How many different frozen encoders an arm has."""
    return random_draws if init in (Init.RANDOM_DEFAULT, Init.RANDOM_PAPER) else 1
