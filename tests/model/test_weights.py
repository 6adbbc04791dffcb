"""Weights are tensors on disk and come back as they were."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tapray.errors import UserError
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import load_tap, save_tap, weights_digest


def net(seed: int = 0) -> TapNet:
    made = TapNet("unet-8s2")
    initialise(made, torch.Generator().manual_seed(seed))
    made(torch.randn(2, 2, 16, 16))  # statistics other than at the start
    return made


def test_a_net_comes_back_as_it_was(tmp_path: Path) -> None:
    made = net()
    save_tap(made, tmp_path / "m", delta=3, arrow_accuracy={"change": 0.7})
    loaded = load_tap(tmp_path / "m")
    assert made.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in made.state_dict().items())
    assert weights_digest(loaded) == weights_digest(made)
    assert weights_digest(net(1)) != weights_digest(made)
    facts = json.loads((tmp_path / "m" / "tap.json").read_text())
    assert facts == {"preset": "unet-8s2", "channels": 1, "delta": 3, "arrow_accuracy": {"change": 0.7}}


def test_files_hold_tensors_only(tmp_path: Path) -> None:
    made = net()
    save_tap(made, tmp_path / "m")
    path = tmp_path / "m" / "tap.safetensors"
    assert not zipfile.is_zipfile(path)
    with safe_open(path, framework="pt") as opened:
        assert all(isinstance(opened.get_tensor(name), torch.Tensor) for name in opened.keys())  # noqa: SIM118
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tap.safetensors", b"not tensors"),
        ("tap.safetensors", b""),
        ("tap.json", b"{"),
        ("tap.json", b"[1]"),
        ("tap.json", b"{}"),
        ("tap.json", b"\xff\xfe\x00"),
        ("tap.json", b'{"preset": "unet-16"}'),
        ("tap.json", b'{"preset": "unknown"}'),
    ],
)
def test_a_damaged_model_is_the_users_fault_in_one_line(tmp_path: Path, name: str, data: bytes) -> None:
    save_tap(net(), tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        load_tap(tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert "preset" in str(caught.value) or str(tmp_path / "m") in str(caught.value)


def test_a_truncated_or_missing_model_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a readable TAP model"):
        load_tap(tmp_path / "none")
    save_tap(net(), tmp_path / "m")
    path = tmp_path / "m" / "tap.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable TAP model"):
        load_tap(tmp_path / "m")
