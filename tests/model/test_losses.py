"""The loss is the published formula, image by image."""

from __future__ import annotations

import math

import pytest
import torch

from tapray.model.losses import decorrelation, tap_loss


def by_hand(features: torch.Tensor) -> float:
    terms = []
    for image in features.double():
        flat = [channel.flatten().tolist() for channel in image]
        for i, row in enumerate(flat):
            scores = [sum(a * b for a, b in zip(row, other, strict=True)) / 0.2 for other in flat]
            total = math.log(sum(math.exp(score - max(scores)) for score in scores)) + max(scores)
            terms.append(total - scores[i])
    return sum(terms) / len(terms)


def test_decorrelation_agrees_with_a_literal_computation() -> None:
    features = 0.3 * torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    assert by_hand(features) > 0.01
    assert float(decorrelation(features)) == pytest.approx(by_hand(features), rel=1e-4)


def test_decorrelation_is_the_same_in_half_precision() -> None:
    features = 2 * torch.randn(2, 32, 96, 96, generator=torch.Generator().manual_seed(0))  # sums beyond fp16
    exact = decorrelation(features)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            assert torch.equal(decorrelation(features), exact)


def test_decorrelation_is_low_for_orthogonal_channels_and_log_c_for_equal_ones() -> None:
    apart = torch.eye(4).view(1, 4, 2, 2) * 10
    same = torch.ones(1, 4, 2, 2)
    assert float(decorrelation(apart)) == pytest.approx(0, abs=1e-6)
    assert float(decorrelation(same)) == pytest.approx(math.log(4))


def test_the_arrow_is_the_frame_that_was_first() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    first = torch.tensor([0, 1, 1])
    features = torch.randn(3, 2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    loss, accuracy = tap_loss(logits, features, first, 0)
    literal = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))]
    assert float(loss) == pytest.approx(sum(literal) / 3)
    assert float(accuracy) == pytest.approx(2 / 3)
    more, _ = tap_loss(logits, features, first, 0.01)
    assert float(more - loss) == pytest.approx(0.01 * by_hand(features.flatten(0, 1)), rel=1e-3)
