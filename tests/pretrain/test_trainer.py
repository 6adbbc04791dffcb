"""The training step: its options change what they say they change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tapray.config import PretrainConfig
from tapray.model.weights import weights_digest
from tapray.pretrain.batches import Batches
from tapray.pretrain.trainer import Trainer, trained, under
from tests.pretrain.made import config, noise, stream

# in fp16 the first steps may be too large, and are left out
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")


def trained_for(settings: PretrainConfig, steps: int, length: int = 2) -> Trainer:
    trainer, batches = Trainer(settings, seed=0), Batches(stream(noise(), length=length), settings)
    for step in range(steps):
        loss, arrow = trainer.train_step(*batches.train(0, step))
        assert torch.isfinite(loss)
        assert 0 <= float(arrow) <= 1
    return trainer


def test_the_weights_are_a_function_of_the_seed() -> None:
    assert weights_digest(Trainer(config(), 1).net) == weights_digest(Trainer(config(), 1).net)
    assert weights_digest(Trainer(config(), 1).net) != weights_digest(Trainer(config(), 2).net)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"channels_last": True},
        {"accumulate": 2},
        {"clip_norm": 0.1},
        {"ema": 0.9},
        {"sync_batchnorm": True},
        {"optimizer": "adamw"},
    ],
)
def test_a_step_with_each_option_trains_and_restores_bitwise(options: dict[str, object]) -> None:
    settings = config(**options)
    whole = trained_for(settings, 4)
    half = trained_for(settings, 2)
    tensors = {name: value.clone() for name, value in half.tensors().items()}
    other = Trainer(settings, seed=5)
    other.restore(tensors, 2)
    batches = Batches(stream(noise()), settings)
    for step in (2, 3):
        other.train_step(*batches.train(0, step))
    assert other.tensors().keys() == whole.tensors().keys()
    for name, value in other.tensors().items():
        assert torch.equal(value, whole.tensors()[name]), name
    assert weights_digest(trained(whole.tensors(), settings.preset, 1)) == weights_digest(whole.result)
    assert weights_digest(whole.net) != weights_digest(Trainer(settings, seed=0).net)


def test_options_change_what_they_name() -> None:
    assert type(trained_for(config(optimizer="adamw"), 1).optimizer) is torch.optim.AdamW
    convolution = trained_for(config(channels_last=True), 1).net.backbone.head.weight
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    kinds = {type(part) for part in Trainer(config(sync_batchnorm=True), 0).net.modules()}
    assert torch.nn.BatchNorm2d not in kinds
    for parts in (1, 3):
        trainer, sizes = Trainer(config(accumulate=parts), 0), list[int]()
        trainer.model.register_forward_pre_hook(lambda _, given, seen=sizes: seen.append(len(given[0])))
        trainer.train_step(*Batches(stream(noise()), config()).train(0, 0))
        assert sizes == {1: [8], 3: [3, 3, 2]}[parts]


@pytest.mark.slow  # compiles for half a minute
def test_a_compiled_net_takes_the_same_steps_and_goes_on() -> None:
    losses: dict[bool, list[float]] = {}
    for compiled in (False, True):
        settings = config(compile=compiled, ema=0.9)
        half, batches, found = Trainer(settings, seed=0), Batches(stream(noise()), settings), list[Tensor]()
        found += [half.train_step(*batches.train(0, step))[0] for step in (0, 1)]
        other = Trainer(settings, seed=5)
        other.restore({name: value.clone() for name, value in half.tensors().items()}, 2)
        found.append(other.train_step(*batches.train(0, 2))[0])
        losses[compiled] = [float(loss) for loss in found]
        assert not any("_orig_mod" in name for name in other.tensors())
    assert losses[True] == pytest.approx(losses[False], rel=1e-2)


def test_more_than_two_frames_are_trained_on() -> None:
    trainer = trained_for(config(frames=3), 2, length=3)
    assert trainer.net(torch.zeros(4, 3, 16, 16))[0].shape == (4, 3)


def test_a_clipped_gradient_is_as_short_as_asked() -> None:
    trainer = trained_for(config(clip_norm=1e-3), 1)
    gradients = [p.grad for p in trainer.net.parameters() if p.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) <= 1e-3 * 1.001


def test_averaged_weights_follow_the_net() -> None:
    settings = config(ema=0.75)
    trainer, batches = Trainer(settings, seed=0), Batches(stream(noise()), settings)
    name, seen = "backbone.head.weight", []
    for step in range(3):
        trainer.train_step(*batches.train(0, step))
        seen.append(trainer.net.state_dict()[name].clone())
    expected = seen[0]
    for value in seen[1:]:
        expected = 0.75 * expected + 0.25 * value
    torch.testing.assert_close(trainer.result.state_dict()[name], expected)
    for key, value in trainer.net.named_buffers():  # of the net that the averaged one will be used with
        assert torch.equal(value, trainer.result.get_buffer(key))


def test_parts_of_a_batch_give_the_gradient_of_the_whole() -> None:
    """Without batch norm's statistics, which are those of the parts."""
    settings = config(decorrelation=0)
    crops, first = Batches(stream(noise()), settings).train(0, 0)
    gradients = []
    for parts in (1, 2):
        trainer = Trainer(settings.model_copy(update={"accumulate": parts}), seed=0)
        trainer.net.eval()
        trainer.train_step(crops, first)
        gradients.append([p.grad.clone() for p in trainer.net.parameters() if p.grad is not None])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_to_full(precision: str) -> None:
    batch = Batches(stream(noise()), config()).train(0, 0)
    losses = [float(Trainer(config(precision=p), 0).train_step(*batch)[0]) for p in ("fp32", precision)]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


def test_names_are_found_under_a_prefix() -> None:
    one = torch.zeros(1)
    assert under("net", {"net.a.b": one, "network.c": one}) == {"a.b": one}
