"""The training loop: steps, records, validation, checkpoints. The same for one process and for many."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from tapray.atomic import atomic_write
from tapray.config import PretrainConfig, Role
from tapray.errors import UserError
from tapray.pretrain.batches import Ahead, Batches
from tapray.pretrain.checkpoints import Checkpoints, Saved
from tapray.pretrain.trainer import Trainer

EVERY, EVERY_S = (10, 5, 2, 1), 10.0  # steps between records: the most that take no longer than this


@dataclass(frozen=True)
class Team:
    """This worker among those that train together; by default it is alone."""

    rank: int = 0
    world: int = 1
    total: Callable[[Tensor], Tensor] = lambda values: values  # sums values over the workers
    stop: Callable[[], bool] = lambda: False  # whether it is to save and end; rank 0 asks at each record


ALONE = Team()


def run(
    trainer: Trainer, train: Batches, val: Batches, checkpoints: Checkpoints, log: Path, team: Team
) -> None:
    """Trains to the end, from the latest checkpoint if there is one.

    Every worker runs it; rank 0 writes records and checkpoints. A record holds step, epoch, loss, arrow
    (training accuracy), pairs_per_s, wait (share of the time spent on drawing and cutting crops), rate
    (learning rate), workers, of all of them together cpu (cores in use), memory_gb and, on GPUs,
    gpu_memory_gb, and at the end of an epoch val_arrow.
    """
    config, steps = trainer.config, trainer.config.steps_per_epoch
    scores = resume(trainer, checkpoints, team)
    records = _Log(log if team.rank == 0 else None, trainer.step)
    meter, ahead = _Meter(team, trainer.device), Ahead(train)
    while not finished(config, trainer.step, scores):
        epoch, within = divmod(trainer.step, steps)
        with meter.waiting():
            cut = ahead.crops(epoch, within, divmod(trainer.step + 1, steps))
        crops, first = train.augmented(cut, epoch, within)
        meter.add(*trainer.train_step(crops, first), len(crops))
        scored = within + 1 == steps
        due = scored or (config.checkpoint_every and trainer.step % config.checkpoint_every == 0)
        if not due and (within + 1) % meter.every:
            continue
        record, stopped = meter.record()
        if scored:
            scores.append(_validation_accuracy(trainer, val, team))
            record["val_arrow"] = scores[-1]
        rate = trainer.optimizer.param_groups[0]["lr"]
        records.write({"step": trainer.step, "epoch": epoch, **record, "rate": rate})
        if (due or stopped) and team.rank == 0:
            checkpoints.save(trainer.tensors(), trainer.step, scores, scored)
        if stopped:
            break
        meter.restart()


def result(config: PretrainConfig, checkpoints: Checkpoints) -> Saved:
    """The checkpoint to keep, once all have ended: the best on validation frames, where those are unseen.

    Raises:
        UserError: the last one is not there: there was no space for it.
    """
    latest = checkpoints.awaited(lambda saved: finished(config, saved.step, saved.scores))
    if latest is None:
        todo = "free some and run again"
        raise UserError("no space is left for the last checkpoint", where=checkpoints.folder, todo=todo)
    return latest if Role.VAL in config.include else checkpoints.best()


def resume(trainer: Trainer, checkpoints: Checkpoints, team: Team = ALONE) -> list[float]:
    """Puts the latest checkpoint into the trainer; returns the validation accuracies so far.

    It is the one that rank 0 finds: a file server may show another worker an older one.
    """
    latest = checkpoints.clear() if team.rank == 0 else None
    step = torch.tensor(float(latest.step if latest else 0), dtype=torch.float64, device=trainer.device)
    if not (agreed := int(team.total(step))):
        return []
    saved = latest or checkpoints.awaited(lambda saved: saved.step == agreed)
    if saved is None:
        raise FileNotFoundError(f"{checkpoints.folder}: no checkpoint of step {agreed}")
    trainer.restore(saved.tensors(), saved.step)
    return list(saved.scores)


def finished(config: PretrainConfig, step: int, scores: Sequence[float]) -> bool:
    """Whether all steps are done, or `patience` epochs have not been better than those before them."""
    if step >= config.epochs * config.steps_per_epoch:
        return True
    late = scores[-config.patience :] if config.patience else ()
    early = scores[: -config.patience] if config.patience else ()
    return bool(early) and max(late) <= max(early)


def validate(net: nn.Module, batches: Batches) -> tuple[float, int]:
    """Arrow accuracy on the validation crops and their number, of this worker's share."""
    return accuracy_of(net, map(batches.validation, range(batches.config.val_batches)))


@torch.no_grad()
def accuracy_of(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, int]:
    """Share of arrows told right, and the number of crops.

    In eval mode; the net is left in the mode it came in.
    """
    training = net.training
    net.eval()
    right = total = 0
    for crops, first in batches:
        logits, _ = net(crops)
        right += int((logits.argmax(dim=1) == first).sum())
        total += len(crops)
    net.train(training)
    return right / max(total, 1), total


def _validation_accuracy(trainer: Trainer, val: Batches, team: Team) -> float:
    """Of the net that rank 0 saves: each worker's batch norm has statistics of its own crops."""
    for buffer in trainer.result.buffers() if team.world > 1 else ():
        buffer.copy_(team.total(buffer.clone() if team.rank == 0 else torch.zeros_like(buffer)))
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
        self.every = 0  # steps between records, the same on every worker; 0: not known yet
        self.restart()

    def restart(self) -> None:
        self._steps = 0
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._device)  # loss, arrow, crops
        self._wait, self._start = 0.0, time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time of the block is waiting for crops."""
        start = time.perf_counter()
        yield
        self._wait += time.perf_counter() - start

    def add(self, loss: Tensor, arrow: Tensor, crops: int) -> None:
        self._steps += 1
        self._sums += crops * torch.stack([loss, arrow, torch.ones_like(loss)]).double()
        if not self.every:
            taken = self._sums.new_tensor([time.perf_counter() - self._start])
            self._pace(self._team.total(taken).item())

    def _pace(self, seconds: float) -> None:
        """After steps that took so long, over all workers."""
        a_step = seconds / self._team.world / self._steps
        self.every = next((n for n in EVERY if n * a_step <= EVERY_S), EVERY[-1])

    def record(self) -> tuple[dict[str, float], bool]:
        """Of all workers together, and whether they are asked to stop."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # else what it is still at would count as no time
        stop = self._team.rank == 0 and self._team.stop()
        taken = time.perf_counter() - self._start
        used = (self._process.cpu_percent() / 100, self._process.memory_info().rss / 1e9)
        own = self._sums.new_tensor([self._wait, float(stop), taken, *used, _gpu_memory_gb(self._device)])
        sums = self._team.total(torch.cat([self._sums, own])).tolist()
        loss, arrow, n, wait, stopped, seconds, cpu, memory_gb, gpu_memory_gb = sums
        self._pace(seconds)
        return {
            "loss": loss / n,
            "arrow": arrow / n,
            "pairs_per_s": n / taken,
            "wait": wait / (self._team.world * taken),
            "workers": self._team.world,
            "cpu": cpu,
            "memory_gb": memory_gb,
            **({"gpu_memory_gb": gpu_memory_gb} if gpu_memory_gb else {}),
        }, stopped > 0


def _gpu_memory_gb(device: torch.device) -> float:
    """The most that this worker has had; 0 without a GPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


class _Log:
    """Appends records, as JSON lines; those after the step that is continued from are dropped.

    Where the disk is full they are kept until there is room.
    """

    def __init__(self, path: Path | None, step: int) -> None:
        self._path, self._waiting = path, ""
        if path:
            old = path.read_text().splitlines() if path.exists() else []
            kept = [line for line in old if 0 < _step(line) <= step]
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


def _step(line: str) -> int:
    """Of a record; 0 where the line is none, as what a power cut leaves of it."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return 0
