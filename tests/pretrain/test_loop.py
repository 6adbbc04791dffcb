"""Training: the same crops for any number of workers, resumed bitwise, blind without an arrow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tapray.config import PretrainConfig
from tapray.crops.draw import CropStream
from tapray.crops.normalise import frame_ranges
from tapray.crops.samplers import grid_shape
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import load_training, save_training, weights_digest
from tapray.pretrain.loop import Batches, make_optimizer, train_step, validate
from tests.crops.sources import source_of

SIZE = 16


def config(**changes: object) -> PretrainConfig:
    small = {"preset": "unet-8s2", "size": SIZE, "batch": 8, "steps_per_epoch": 3, "epochs": 2}
    return PretrainConfig.model_validate({**small, "val_batches": 2, **changes})


def stream(frames: np.ndarray, seed: int = 0) -> CropStream:
    weights = np.ones((len(frames) - 1, *grid_shape(*frames.shape[1:], SIZE)))
    ranges = np.tile(np.float32([0, 1000]), (len(frames), 1))
    return CropStream([source_of(frames, ranges, weights)], SIZE, 1, "linear", seed)


def noise(frames: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, (frames, 40, 40)).astype(np.uint16)


def net(seed: int = 0) -> TapNet:
    made = TapNet("unet-8s2")
    initialise(made, torch.Generator().manual_seed(seed))
    return made


@pytest.mark.parametrize("world", [1, 2, 4, 3])
def test_the_workers_together_see_the_same_crops_however_many_they_are(world: int) -> None:
    settings, frames = config(augment="none"), noise()
    whole = stream(frames).cut(stream(frames).positions(1, 2, settings.batch))
    shares = []
    for rank in range(world):
        pairs, swapped = Batches(stream(frames), settings, rank, world).train(1, 2)
        shares.append(torch.where(swapped[:, None, None, None], pairs.flip(1), pairs))
    assert [len(share) for share in shares] == [len(range(rank, 8, world)) for rank in range(world)]
    together = {pair.numpy().tobytes() for share in shares for pair in share}
    assert together == {pair.tobytes() for pair in whole}


@pytest.mark.parametrize("augment", ["none", "light", "paper"])
def test_a_batch_is_a_function_of_seed_epoch_step_and_rank(augment: str) -> None:
    def batch(seed: int = 0, epoch: int = 1, step: int = 2, rank: int = 0) -> torch.Tensor:
        torch.rand(3)  # whatever the global generator did
        return Batches(stream(noise(), seed), config(augment=augment), rank, 2).train(epoch, step)[0]

    assert torch.equal(batch(), batch())
    for other in (batch(seed=1), batch(epoch=2), batch(step=3), batch(rank=1)):
        assert not torch.equal(batch(), other)


def test_ranks_flip_and_swap_independently() -> None:
    same = np.tile(noise(1), (8, 1, 1))  # a movie that does not move
    swaps = [Batches(stream(same), config(batch=128), rank, 2).train(0, 0)[1] for rank in (0, 1)]
    assert not torch.equal(*swaps)


def test_validation_is_the_same_in_every_epoch_and_not_augmented() -> None:
    batches = Batches(stream(noise()), config(augment="paper"))
    one, swapped = batches.validation(0)
    again, swapped_again = batches.validation(0)
    assert torch.equal(one, again)
    assert torch.equal(swapped, swapped_again)
    assert not torch.equal(one, batches.validation(1)[0])
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1


def run(settings: PretrainConfig, folder: Path, stop_after: int | None) -> str:
    """Trains to the end; with `stop_after` epochs, goes on with new objects from the checkpoint."""
    made, done = net(), 0
    batches = Batches(stream(noise()), settings)
    for end in (stop_after, settings.epochs) if stop_after else (settings.epochs,):
        optimizer, scheduler = make_optimizer(made, settings)
        if done:
            made = net(seed=9)
            optimizer, scheduler = make_optimizer(made, settings)
            assert load_training(folder / "state", made, optimizer) == done
        for _ in range(done * settings.steps_per_epoch):
            scheduler.step()
        for epoch in range(done, end):
            for step in range(settings.steps_per_epoch):
                pairs, swapped = batches.train(epoch, step)
                train_step(made, optimizer, scheduler, pairs, swapped, settings.decorrelation)
            validate(made, batches)
            save_training(folder / "state", made, optimizer, epoch + 1)
        done = end
    return weights_digest(made)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(("schedule", "optimizer"), [("one_cycle", "adam"), ("cyclic", "adamw")])
def test_a_resumed_run_equals_an_undisturbed_one_bitwise(
    tmp_path: Path, schedule: str, optimizer: str
) -> None:
    settings = config(schedule=schedule, optimizer=optimizer, epochs=3)
    undisturbed = run(settings, tmp_path, None)
    assert run(settings, tmp_path, 1) == undisturbed
    assert run(settings, tmp_path, 2) == undisturbed
    assert undisturbed != weights_digest(net())


@pytest.mark.parametrize("schedule", ["one_cycle", "cyclic"])
def test_any_number_of_steps_has_a_schedule(schedule: str) -> None:
    for total in range(1, 12):
        settings = config(schedule=schedule, epochs=1, steps_per_epoch=total, learning_rate=1e-2)
        optimizer, scheduler = make_optimizer(torch.nn.Linear(1, 1), settings)
        rates = []
        for _ in range(total):
            optimizer.step()
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
        assert min(rates) >= 0
        assert max(rates) <= 1e-2 + 1e-12


def test_the_published_schedule_rises_tenfold_and_falls_again() -> None:
    settings = config(schedule="cyclic", learning_rate=1e-3, steps_per_epoch=5)
    optimizer, scheduler = make_optimizer(torch.nn.Linear(1, 1), settings)
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(1e-4)
    assert rates[10] == pytest.approx(1e-3)
    assert rates[20] == pytest.approx(1e-4)


def test_validation_counts_and_leaves_the_net_alone() -> None:
    batches, made = Batches(stream(noise()), config()), net()
    for training in (True, False):
        made.train(training)
        before = weights_digest(made)
        accuracy, count = validate(made, batches)
        assert count == 16
        assert made.training is training
        assert weights_digest(made) == before
    made.eval()
    right = [
        (made(pairs)[0].argmax(dim=1) == swapped).double().mean().item()
        for pairs, swapped in (batches.validation(step) for step in range(2))
    ]
    assert accuracy == pytest.approx(sum(right) / 2)


def trained_accuracy(frames: np.ndarray, held_out: np.ndarray) -> float:
    settings = config(batch=32, epochs=1, steps_per_epoch=40, val_batches=16, learning_rate=1e-2)
    made, batches = net(), Batches(stream(frames), settings)
    optimizer, scheduler = make_optimizer(made, settings)
    for step in range(settings.steps_per_epoch):
        train_step(made, optimizer, scheduler, *batches.train(0, step), settings.decorrelation)
    return validate(made, Batches(stream(held_out), settings))[0]


def test_a_movie_without_an_arrow_stays_at_chance() -> None:
    # frames drawn independently: forwards and backwards alike; 512 crops, four standard errors
    assert trained_accuracy(noise(40), noise(40, seed=1)) == pytest.approx(0.5, abs=0.09)


def test_a_movie_with_an_arrow_does_not() -> None:
    fading = np.linspace(4, 0.2, 8)[:, None, None]
    movie, other = ((noise(8, seed) * fading).astype(np.uint16) for seed in (0, 1))
    assert trained_accuracy(movie, other) > 0.75


def test_ranges_are_those_of_the_frames_a_crop_is_from() -> None:
    frames = noise()
    ranges = frame_ranges(frames, "linear")
    exact = source_of(frames, ranges, np.ones((7, *grid_shape(40, 40, SIZE))))
    pairs = CropStream([exact], SIZE, 1, "linear", 0).cut(np.array([[0, 3, 0, 0]]))
    expected = (frames[3, :SIZE, :SIZE] - ranges[3, 0]) / (ranges[3, 1] - ranges[3, 0])
    np.testing.assert_allclose(pairs[0, 0], expected, rtol=1e-5)
