"""The encoders of a study's arms: pretrained, random, and those trained on the labels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tapray.config import Init, JobConfig
from tapray.model.tap import TapNet, initialise, initialise_paper
from tapray.model.weights import load_tap


def build_encoder(init: Init, draw: int, preset: str, channels: int, model: Path) -> TapNet:
    """The encoder an arm starts from.

    Args:
        draw: which of the independent encoders.
        preset, channels: network of the random encoders, the same as the pretrained one's.
        model: folder of the first pretrained net.
    """
    if init.pretrained:
        return load_tap(repeat_folder(model, draw))
    net = TapNet(preset, channels)
    generator = torch.Generator().manual_seed(1_000_003 * (draw + 1))
    (initialise_paper if init is Init.RANDOM_PAPER else initialise)(net, generator)
    return net


def difference(pairs: Tensor) -> Tensor:
    """What needs no learning: (B, 2, H, W) or (B, 2, C, H, W) -> (B, 2, C, H, W), 0 and second minus first.

    The pooled head on it is a logistic regression on the energy of change and the like.
    """
    frames = pairs if pairs.dim() == 5 else pairs.unsqueeze(2)
    change = frames[:, 1] - frames[:, 0]
    return torch.stack([torch.zeros_like(change), change], dim=1)


def draws(init: Init, config: JobConfig) -> int:
    """How many different frozen encoders an arm has, shared among the seeds."""
    if init in (Init.RANDOM_DEFAULT, Init.RANDOM_PAPER):
        return config.study.random_draws
    return config.pretrain.repeats if init.pretrained else 1


def draw_of(init: Init, config: JobConfig, seed: int) -> int:
    """Which encoder a seed has: of the arm trained on labels alone one of its own."""
    return seed if init is Init.END_TO_END else seed % draws(init, config)


def repeat_folder(model: Path, number: int) -> Path:
    """The folder of the net of a repeated pretraining; that of the first is `model`."""
    return model.with_name(f"{model.name}-{number}") if number else model
