"""The training loop: steps, records, validation, checkpoints. The same for one process and for many."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from tapray.atomic import atomic_write
from tapray.config import PretrainConfig
from tapray.errors import UserError
from tapray.pretrain.batches import Batches
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.trainer import Trainer

LOG_EVERY = 10  # steps between records


@dataclass(frozen=True)
class Team:
    """This worker among those that train together; by default it is alone."""

    rank: int = 0
    world: int = 1
    total: Callable[[Tensor], Tensor] = lambda values: values  # sums values over the workers
    stop: Callable[[], bool] = lambda: False  # whether it is to save and end; rank 0 asks at each record


def run(
    trainer: Trainer, train: Batches, val: Batches, checkpoints: Checkpoints, log: Path, team: Team
) -> None:
    """Trains to the end, from the latest checkpoint if there is one.

    Every worker runs it; rank 0 writes records and checkpoints. A record holds step, epoch, loss, arrow
    (training accuracy), pairs_per_s, wait (share of the time spent on drawing and cutting crops), rate
    (learning rate), workers, cpu (cores in use), memory_gb and, at the end of an epoch, val_arrow.

    Raises:
        UserError: the last checkpoint could not be saved, the disk being full.
    """
    config, steps = trainer.config, trainer.config.steps_per_epoch
    scores = resume(trainer, checkpoints)
    records = _Log(log if team.rank == 0 else None, trainer.step)
    meter = _Meter(team, trainer.device)
    saved = True
    while not finished(config, trainer.step, scores):
        epoch, within = divmod(trainer.step, steps)
        crops, first = meter.batch(train, epoch, within)
        meter.add(*trainer.train_step(crops, first), len(crops))
        scored = within + 1 == steps
        due = scored or (config.checkpoint_every and trainer.step % config.checkpoint_every == 0)
        if not due and (within + 1) % LOG_EVERY:
            continue
        record, stopped = meter.record()
        if scored:
            scores.append(_validation_accuracy(trainer, val, team))
            record["val_arrow"] = scores[-1]
        rate = trainer.optimizer.param_groups[0]["lr"]
        records.write({"step": trainer.step, "epoch": epoch, **record, "rate": rate})
        if (due or stopped) and team.rank == 0:
            saved = checkpoints.save(trainer.tensors(), trainer.step, scores, scored)
        if stopped:
            break
        meter.restart()
    if not saved:
        todo = "free some and run again"
        raise UserError("no space is left for the last checkpoint", where=log.parent, todo=todo)


def resume(trainer: Trainer, checkpoints: Checkpoints) -> list[float]:
    """Puts the latest checkpoint into the trainer; returns the validation accuracies so far."""
    latest = checkpoints.latest()
    if latest is None:
        return []
    trainer.restore(latest.tensors(), latest.step)
    return list(latest.scores)


def finished(config: PretrainConfig, step: int, scores: Sequence[float]) -> bool:
    """Whether all steps are done, or `patience` epochs have not been better than those before them."""
    if step >= config.epochs * config.steps_per_epoch:
        return True
    late = scores[-config.patience :] if config.patience else ()
    early = scores[: -config.patience] if config.patience else ()
    return bool(early) and max(late) <= max(early)


@torch.no_grad()
def validate(net: nn.Module, batches: Batches) -> tuple[float, int]:
    """Arrow accuracy on the validation crops and their number, of this worker's share.

    In eval mode; the net is left in the mode it came in.
    """
    training = net.training
    net.eval()
    right = total = 0
    for step in range(batches.config.val_batches):
        crops, first = batches.validation(step)
        logits, _ = net(crops)
        right += int((logits.argmax(dim=1) == first).sum())
        total += len(crops)
    net.train(training)
    return right / max(total, 1), total


def _validation_accuracy(trainer: Trainer, val: Batches, team: Team) -> float:
    share, crops = validate(trainer.result, val)
    sums = torch.tensor([share * crops, crops], dtype=torch.float64, device=trainer.device)
    right, count = team.total(sums).tolist()
    return float(right / count)


class _Meter:
    """Sums over the steps since the last record."""

    def __init__(self, team: Team, device: torch.device) -> None:
        self._team, self._device = team, device
        self._process = psutil.Process()
        self._process.cpu_percent()  # counts from here
        self.restart()

    def restart(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._device)  # loss, arrow, crops
        self._wait, self._start = 0.0, time.perf_counter()

    def batch(self, train: Batches, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        start = time.perf_counter()
        crops = train.crops(epoch, step)
        self._wait += time.perf_counter() - start
        return train.augmented(crops, epoch, step)

    def add(self, loss: Tensor, arrow: Tensor, crops: int) -> None:
        self._sums += crops * torch.stack([loss, arrow, torch.ones_like(loss)]).double()

    def record(self) -> tuple[dict[str, float], bool]:
        """Over all workers, and whether they are asked to stop."""
        stop = self._team.rank == 0 and self._team.stop()
        own = self._sums.new_tensor([self._wait, float(stop)])
        loss, arrow, n, wait, stopped = self._team.total(torch.cat([self._sums, own])).tolist()
        taken = time.perf_counter() - self._start
        return {
            "loss": loss / n,
            "arrow": arrow / n,
            "pairs_per_s": n / taken,
            "wait": wait / (self._team.world * taken),
            "workers": self._team.world,
            "cpu": self._process.cpu_percent() / 100,
            "memory_gb": self._process.memory_info().rss / 1e9,
            **_gpu(self._device),
        }, stopped > 0


def _gpu(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    return {"gpu_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9}


class _Log:
    """Appends records, as JSON lines; those after the step that is continued from are dropped.

    Where the disk is full they are kept until there is room.
    """

    def __init__(self, path: Path | None, step: int) -> None:
        self._path, self._waiting = path, ""
        if path:
            old = path.read_text().splitlines() if path.exists() else []
            kept = [line for line in old if line.endswith("}") and json.loads(line)["step"] <= step]
            atomic_write(path, "".join(line + "\n" for line in kept))
            self._size = path.stat().st_size

    def write(self, record: dict[str, float]) -> None:
        if self._path is None:
            return
        self._waiting += json.dumps(record) + "\n"
        data = self._waiting.encode()
        with suppress(OSError), self._path.open("r+b") as file:
            file.truncate(self._size)  # what was written in part
            file.seek(0, os.SEEK_END)
            file.write(data)
            file.flush()
            self._size, self._waiting = self._size + len(data), ""
