"""Model folders of the published code: every name, every tensor, and nothing but tensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tapray.errors import UserError
from tapray.model.tap import TapNet, initialise, initialise_paper
from tapray.model.tarrow import given_weights, read_tarrow, their_name, write_tarrow
from tapray.model.weights import save_tap, weights_digest


@pytest.fixture(scope="module")
def net() -> TapNet:
    made = TapNet("unet-32")
    initialise_paper(made, torch.Generator().manual_seed(0))
    made(torch.randn(2, 2, 16, 16))  # statistics other than at the start
    return made.eval()


@pytest.fixture
def folder(net: TapNet, tmp_path: Path) -> Path:
    write_tarrow(net, tmp_path / "theirs")
    return tmp_path / "theirs"


def test_every_tensor_has_a_name_of_its_own_there(net: TapNet) -> None:
    names = {their_name(name) for name in net.state_dict()}
    assert len(names) == len(net.state_dict())
    # As the published code names them; each kind once.
    assert names >= {
        "backbone.l_conv.0.conv_block.0.weight",
        "backbone.l_conv.3.conv_block.4.running_var",
        "backbone.r_conv.2.conv_block.1.num_batches_tracked",
        "backbone.head.bias",
        "projection_head.layers.0.weight",
        "projection_head.layers.1.running_mean",
        "classification_head.layers.0.layers.0.L.weight",
        "classification_head.layers.1.layers.0.G.bias",
        "classification_head.layers.1.layers.0.norm.weight",
        "classification_head.head.1.layers.0.L.bias",
    }


def test_a_net_comes_back_as_it_was(net: TapNet, folder: Path) -> None:
    assert weights_digest(read_tarrow(folder)) == weights_digest(net)
    pairs = torch.randn(2, 2, 50, 61)
    with torch.no_grad():
        assert torch.equal(read_tarrow(folder).eval()(pairs)[1], net(pairs)[1])


def test_odd_sizes_are_padded_on_both_sides_as_published(net: TapNet) -> None:
    """A frame of 50 px gives the same as the frame padded by hand to 56 px, 3 on each side."""
    frame = torch.randn(1, 1, 50, 50)
    padded = torch.nn.functional.pad(frame, (3, 3, 3, 3), mode="replicate")
    with torch.no_grad():
        assert torch.equal(net.backbone(frame), net.backbone(padded)[..., 3:53, 3:53])


def test_either_kind_of_folder_is_read(net: TapNet, folder: Path, tmp_path: Path) -> None:
    save_tap(net, tmp_path / "ours")
    for path in (folder, tmp_path / "ours"):
        assert weights_digest(given_weights(path, "unet-32", 1)) == weights_digest(net)
        with pytest.raises(UserError, match="is of preset 'unet-32', not 'unet-16'"):
            given_weights(path, "unet-16", 1)
    with pytest.raises(UserError, match="not a readable TAP model"):
        given_weights(tmp_path / "absent", "unet-32", 1)


def test_a_net_of_two_channels_comes_back_and_goes_with_movies_of_two(tmp_path: Path) -> None:
    made = TapNet("unet-32", channels=2)
    write_tarrow(made, tmp_path / "theirs")
    assert yaml.safe_load((tmp_path / "theirs" / "model_kwargs.yaml").read_text())["n_input_channels"] == 2
    assert weights_digest(given_weights(tmp_path / "theirs", "unet-32", 2)) == weights_digest(made)
    with pytest.raises(UserError, match=r"sees 2 channel\(s\), the movies have 1"):
        given_weights(tmp_path / "theirs", "unet-32", 1)


def test_only_the_published_net_can_be_written(tmp_path: Path) -> None:
    small = TapNet("unet-8s2")
    initialise(small, torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match="knows no preset 'unet-8s2'"):
        write_tarrow(small, tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backbone", "resnet18"),
        ("projection_head", "linear"),
        ("classification_head", "difference"),
        ("symmetric", False),
        ("n_frames", 3),
        ("n_features", 16),
        ("n_input_channels", 0),
        ("n_input_channels", "two"),
    ],
)
def test_other_architectures_are_refused_by_name(folder: Path, key: str, value: Any) -> None:
    told = folder / "model_kwargs.yaml"
    kwargs = yaml.safe_load(told.read_text())
    told.write_text(yaml.safe_dump({**kwargs, key: value}))
    with pytest.raises(UserError, match=f"{key} is {value!r}"):
        read_tarrow(folder)
    told.write_text(yaml.safe_dump({name: own for name, own in kwargs.items() if name != "symmetric"}))
    with pytest.raises(UserError, match="symmetric is False"):  # the published code's default
        read_tarrow(folder)


class Evil:
    """Would run code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize("content", ["pickle", "evil", "empty", "text", "number"])
def test_what_is_not_tensors_is_refused_in_one_line(folder: Path, content: str) -> None:
    state = folder / "model_state.pt"
    if content == "pickle":
        state.write_bytes(pickle.dumps({"a": 1}, protocol=2))
    elif content == "evil":
        torch.save({"backbone.head.bias": Evil()}, state)
    elif content == "number":
        torch.save(3, state)
    else:
        state.write_bytes(b"" if content == "empty" else b"not tensors")
    with pytest.raises(UserError, match=r"tarrow model|do not fit") as error:
        read_tarrow(folder)
    assert "\n" not in str(error.value)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    state = folder / "model_state.pt"
    tensors = torch.load(state, weights_only=True)
    torch.save({**tensors, "backbone.head.bias": torch.zeros(3)}, state)
    with pytest.raises(UserError, match=r"backbone\.head\.bias"):
        read_tarrow(folder)
    torch.save({name: value for name, value in tensors.items() if name != "backbone.head.bias"}, state)
    with pytest.raises(UserError, match=r"do not fit the architecture \('backbone\.head\.bias'\)"):
        read_tarrow(folder)
    torch.save({**tensors, "extra": torch.zeros(1)}, state)
    with pytest.raises(UserError, match="'extra'"):
        read_tarrow(folder)
