"""Several workers that stop and go on end where those do that never stopped, to the last bit."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tapray.model.weights import weights_digest
from tapray.pretrain.batches import Batches
from tapray.pretrain.trainer import Trainer
from tests.pretrain.made import config, noise, stream

WORLD, STEPS, STOP = 3, 6, 3  # two can only be summed in one order
SETTINGS = config()


def worker(rank: int, port: int, folder: str) -> None:
    """Trains through, and again with a restart; rank 0 writes both nets' digests."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    batches = Batches(stream(noise()), SETTINGS, rank, WORLD)

    def made() -> Trainer:
        return Trainer(SETTINGS, 0, wrap=DistributedDataParallel, world=WORLD)

    through, before = made(), made()
    for step in range(STEPS):
        through.train_step(*batches.train(0, step))
    for step in range(STOP):
        before.train_step(*batches.train(0, step))
    again = made()
    again.restore(before.tensors(), STOP)
    for step in range(STOP, STEPS):
        again.train_step(*batches.train(0, step))
    if rank == 0:
        digests = [weights_digest(trainer.net) for trainer in (through, again, before)]
        (Path(folder) / "digests").write_text("\n".join(digests))
    dist.destroy_process_group()


@pytest.mark.slow  # starts processes
def test_three_workers_go_on_to_the_last_bit(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=WORLD)
    through, again, before = (tmp_path / "digests").read_text().split("\n")
    assert through == again != before
