"""What MLflow serves gives a crop the probability that the job itself gives it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tapray.config import CropConfig, HeadKind, Layer
from tapray.detector import Detector
from tapray.model.dense import frame_features
from tapray.model.heads import build_head
from tapray.model.tap import TapNet, freeze, initialise
from tapray.serving import Served, example, margin
from tapray.study.calibration import Calibration

PRESET, SIZE = "unet-8s2", 32


def detector_of(features: str) -> Detector:
    net, crops = TapNet(PRESET), CropConfig.model_validate({"size": SIZE, "features": features})
    initialise(net, torch.Generator().manual_seed(0))
    freeze(net)
    side = SIZE // net.backbone.stride
    head = build_head(HeadKind.LINEAR, 32, side, 2, torch.Generator().manual_seed(1))
    freeze(head)
    return Detector(net, Layer.PROJECTION, head, Calibration(1.5, (0.0, 0.3)), 0.5, crops, {})


def test_features_of_crops_need_the_crop_alone() -> None:
    made = detector_of("crop")
    pairs = example(made)
    assert pairs.shape == (2, 2, SIZE, SIZE)
    with torch.no_grad():
        logits = made.head(made.head.front(made.encoder.features(torch.from_numpy(pairs), made.layer)))
    np.testing.assert_allclose(Served(made).predict(pairs), made.calibration.apply(logits.numpy()), atol=1e-6)


def test_features_of_frames_need_what_lies_around_it() -> None:
    made = detector_of("frame")
    around, stride = margin(made), made.encoder.backbone.stride
    assert around > 0
    side = SIZE + 2 * around
    assert example(made).shape == (2, 2, side, side)
    generator = torch.Generator().manual_seed(2)
    frames = torch.rand(2, 3 * side, 3 * side, generator=generator)
    whole = torch.stack([frame_features(made.encoder, frame, made.layer) for frame in frames])
    y, x = side + made.encoder.backbone.divisor, side
    cut = whole[None, ..., y // stride : (y + SIZE) // stride, x // stride : (x + SIZE) // stride]
    with torch.no_grad():
        wanted = made.calibration.apply(made.head(made.head.front(cut)).double().numpy())
    window = frames[None, :, y - around : y + SIZE + around, x - around : x + SIZE + around].numpy()
    np.testing.assert_allclose(Served(made).predict(window), wanted, atol=1e-5)
    other = window.copy()
    other[..., : around // 2, :] = 0
    assert Served(made).predict(other) != pytest.approx(wanted, abs=1e-9)
