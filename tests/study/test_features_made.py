"""The encoders of a study, and that a backbone is run once for all of its layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tapray.config import Layer
from tapray.model.tap import TapNet
from tapray.model.weights import save_tap
from tapray.study.features import embedded, encoders
from tests.conftest import tiny_config


def test_a_backbone_is_run_once_for_all_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {"inits": ["tap"], "search": ["layer"]}
    config = tiny_config(tmp_path / "run", study=study)
    save_tap(TapNet(config.pretrain.preset), tmp_path / "model")
    made = encoders(config, tmp_path / "model")
    pairs = torch.rand(5, 2, 32, 32, generator=torch.Generator().manual_seed(0)).half()
    alone = {name: embedded({name: one}, pairs, 2)[name] for name, one in made.items()}
    assert {name: tuple(found.shape[:2]) for name, found in alone.items()} == {
        f"tap-0-{layer.value}": (5, 2) for layer in Layer
    }
    runs, plain = list[Layer](), TapNet.features

    def counted(self: TapNet, x: torch.Tensor, layer: Layer = Layer.PROJECTION) -> torch.Tensor:
        runs.append(layer)
        return plain(self, x, layer)

    monkeypatch.setattr(TapNet, "features", counted)
    made = encoders(config, tmp_path / "model")
    together = embedded(made, pairs, 2)
    assert runs == [Layer.BACKBONE] * 3
    for name, found in together.items():
        assert torch.equal(found, alone[name])
