"""Each worker's share of the crops: the same in all, whoever has it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tapray.crops.draw import CropStream
from tapray.crops.normalise import frame_ranges, normalise
from tapray.crops.samplers import grid_shape
from tapray.pretrain.batches import Ahead, Batches
from tests.crops.sources import source_of
from tests.pretrain.made import SIZE, config, noise, stream


@pytest.mark.parametrize("world", [1, 2, 4, 3])
def test_the_workers_together_see_the_same_crops_however_many_they_are(world: int) -> None:
    settings, frames = config(augment="none"), noise()
    raw, ranges = stream(frames).cut(stream(frames).positions(1, 2, settings.batch))
    whole = normalise(raw, ranges, "linear")
    shares = []
    for rank in range(world):
        pairs, first = Batches(stream(frames), settings, rank, world).train(1, 2)
        shares.append(torch.where(first[:, None, None, None] == 1, pairs.flip(1), pairs))
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


def test_ranks_flip_and_roll_independently() -> None:
    same = np.tile(noise(1), (8, 1, 1))  # a movie that does not move
    firsts = [Batches(stream(same), config(batch=128), rank, 2).train(0, 0)[1] for rank in (0, 1)]
    assert not torch.equal(*firsts)


def test_validation_is_the_same_in_every_epoch_and_not_augmented() -> None:
    batches = Batches(stream(noise()), config(augment="paper"))
    one, first = batches.validation(0)
    again, first_again = batches.validation(0)
    assert torch.equal(one, again)
    assert torch.equal(first, first_again)
    assert not torch.equal(one, batches.validation(1)[0])
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1


def test_ranges_are_those_of_the_frames_a_crop_is_from() -> None:
    frames = noise()
    ranges = frame_ranges(frames, "linear")
    exact = source_of(frames, ranges, np.ones((7, *grid_shape(40, 40, SIZE))))
    raw, found = CropStream([exact], SIZE, 2, "linear", 0).cut(np.array([[0, 3, 0, 0]]))
    assert np.array_equal(raw[0, 0], frames[3, :SIZE, :SIZE])
    assert np.array_equal(found[0], ranges[3:5])


@pytest.mark.parametrize("intensity", ["linear", "sqrt"])
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i2", "u4", "i4", "u8", "f2", "f4", ">f4", "f8"])
def test_crops_are_normalised_as_arrays_are(dtype: str, intensity: str) -> None:
    frames = (noise() // 4 if dtype == "u1" else noise()).astype(dtype)
    source = source_of(frames, frame_ranges(frames, intensity), np.ones((7, *grid_shape(40, 40, SIZE))))
    drawn = CropStream([source], SIZE, 2, intensity, 0)
    crops = Batches(drawn, config(batch=64)).crops(0, 0)
    expected = normalise(*drawn.cut(drawn.positions(0, 0, 64)), intensity)
    assert np.array_equal(crops.numpy(), expected)


def test_movies_of_different_dtypes_are_drawn_from_together() -> None:
    arrays = [noise(), noise(seed=1).astype(np.int16), noise(seed=2).astype(np.float32)]
    weights = np.ones((7, *grid_shape(40, 40, SIZE)))
    sources = [source_of(frames, frame_ranges(frames, "linear"), weights) for frames in arrays]
    drawn = CropStream(sources, SIZE, 2, "linear", 0)
    positions = drawn.positions(0, 0, 64)
    raw, ranges = drawn.cut(positions)
    for (index, t, y, x), pair, limits in zip(positions, raw, ranges, strict=True):
        assert np.array_equal(pair, arrays[index][t : t + 2, y : y + SIZE, x : x + SIZE])
        assert np.array_equal(limits, sources[index].ranges[t : t + 2])
    assert set(positions[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_crops_cut_ahead_are_those_that_are_asked_for(device: str) -> None:
    own = Batches(stream(noise()), config())
    ahead = Ahead(SimpleNamespace(device=torch.device(device), crops=own.crops))  # a thread needs no GPU
    for at, after in (((0, 0), (0, 1)), ((0, 1), (0, 2)), ((4, 2), (4, 3)), ((4, 3), (5, 0))):
        assert torch.equal(ahead.crops(*at, after), own.crops(*at))
