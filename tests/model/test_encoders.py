"""Baselines are what their name says: the pretrained weights are gone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tapray.config import Init, JobConfig
from tapray.model.encoders import build_encoder, draw_of, draws
from tapray.model.tap import TapNet
from tapray.model.weights import save_tap, weights_digest

PRESET = "unet-8s2"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = TapNet(PRESET)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(torch.rand(value.shape) + 0.5)
    save_tap(net, tmp_path / "m")
    return tmp_path / "m"


def test_every_kind_of_start_has_other_weights(model: Path) -> None:
    nets = {init: build_encoder(init, 0, PRESET, 1, model) for init in Init}
    digest = {init: weights_digest(net) for init, net in nets.items()}
    assert digest[Init.TAP] == digest[Init.FINE_TUNE]
    assert digest[Init.RANDOM_DEFAULT] == digest[Init.END_TO_END]
    assert len({digest[Init.TAP], digest[Init.RANDOM_DEFAULT], digest[Init.RANDOM_PAPER]}) == 3


@pytest.mark.parametrize("init", [Init.RANDOM_DEFAULT, Init.RANDOM_PAPER, Init.END_TO_END])
def test_no_weight_of_a_random_encoder_is_a_pretrained_one(init: Init, model: Path) -> None:
    pretrained = build_encoder(Init.TAP, 0, PRESET, 1, model).state_dict()
    for name, value in build_encoder(init, 0, PRESET, 1, model).state_dict().items():
        assert name.endswith("num_batches_tracked") or not torch.equal(value, pretrained[name]), name


def test_draws_of_random_encoders_differ_and_repeat(model: Path) -> None:
    study = {"simulate": {}, "study": {"random_draws": 3, "seeds": 5}, "pretrain": {"repeats": 2}}
    config = JobConfig.model_validate(study)
    assert draws(Init.TAP, config) == draws(Init.FINE_TUNE, config) == 2
    assert [draw_of(Init.TAP, config, seed) for seed in range(5)] == [0, 1, 0, 1, 0]
    assert [draw_of(Init.END_TO_END, config, seed) for seed in range(5)] == [*range(5)]
    for init in (Init.RANDOM_DEFAULT, Init.RANDOM_PAPER):
        assert draws(init, config) == 3
        digests = [weights_digest(build_encoder(init, draw, PRESET, 1, model)) for draw in (0, 1, 2, 0)]
        assert len(set(digests)) == 3
        assert digests[0] == digests[3]


def test_the_same_input_gives_other_features(model: Path) -> None:
    pairs = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    kinds = (Init.TAP, Init.RANDOM_DEFAULT, Init.RANDOM_PAPER)
    with torch.no_grad():
        found = [build_encoder(init, 0, PRESET, 1, model).eval().features(pairs) for init in kinds]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert not torch.allclose(one, other, atol=1e-2)
