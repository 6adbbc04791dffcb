"""Batch norm over all workers is that over all crops at once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tapray.model.sync_norm import synchronised
from tapray.model.tap import TapNet
from tapray.pretrain.batches import Batches
from tapray.pretrain.trainer import Trainer
from tests.pretrain.made import config, noise, stream

SETTINGS = config(sync_batchnorm=True, augment="none", decorrelation=0)


def found(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Gradients and running statistics, in double: the net blows up what batch norm rounds."""
    gradients = {name: value.grad for name, value in trainer.net.named_parameters() if value.grad is not None}
    return gradients | {name: value.double() for name, value in trainer.net.named_buffers()}


def worker(rank: int, world: int, port: int, folder: str, parts: int) -> None:
    """A step, as a worker of Ray Train makes it, in parts; rank 0 writes what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    settings = SETTINGS.model_copy(update={"accumulate": parts})
    trainer = Trainer(settings, 0, wrap=lambda net: DistributedDataParallel(net.double()), world=world)
    trainer.net.train(parts == 1)
    crops, first = Batches(stream(noise()), SETTINGS).train(0, 0)
    trainer.train_step(crops[rank::world].double(), first[rank::world])
    if rank == 0:
        torch.save(found(trainer), Path(folder) / "found.pt")
    dist.destroy_process_group()


@pytest.mark.slow  # starts processes
@pytest.mark.parametrize(("world", "parts"), [(2, 1), (3, 1), (3, 2)])  # of 8 crops: unequal shares
def test_several_workers_take_the_step_of_one(tmp_path: Path, world: int, parts: int) -> None:
    """Parts of a share have statistics of their own in training: those are compared in eval mode."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (world, port, str(tmp_path), parts), nprocs=world)
    together = torch.load(tmp_path / "found.pt", weights_only=True)
    alone = Trainer(SETTINGS, 0, wrap=lambda net: net.double())
    alone.net.train(parts == 1)
    crops, first = Batches(stream(noise()), SETTINGS).train(0, 0)
    alone.train_step(crops.double(), first)
    assert together.keys() == found(alone).keys()
    rounding = 1e-8 if parts == 1 else 1e-7  # of a gradient that is 0 and a sum of six parts
    for name, value in found(alone).items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=rounding)


def test_alone_it_is_ordinary_batch_norm() -> None:
    crops = torch.randn(4, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    nets = []
    for change in (False, True):
        net = TapNet("unet-8s2")
        net.load_state_dict(nets[0].state_dict()) if nets else None
        if change:
            synchronised(net)
        nets.append(net)
    assert nets[0].state_dict().keys() == nets[1].state_dict().keys()
    assert torch.equal(nets[0](crops)[0], nets[1](crops)[0])
