"""Ray Train: TAP pretraining on any number of workers, continued after any interruption."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from tapray.atomic import atomic_write
from tapray.config import JobConfig, Role
from tapray.console import Reporter
from tapray.crops.draw import Region
from tapray.distributed.cluster import interruptible
from tapray.errors import UserError
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import load_training, save_training
from tapray.pretrain.frames import open_stream
from tapray.pretrain.loop import Batches, make_optimizer, train_step, validate

LOG_EVERY = 10  # steps between records


def pretrain(
    config: JobConfig,
    regions: dict[Role, list[Region]],
    frames: Path,
    storage: Path,
    name: str,
    log: Path,
    reporter: Reporter,
) -> TapNet:
    """Pretrains on the train regions; returns the net of the epoch that is best on the val regions.

    Called again with the same `storage` and `name` it continues from the last checkpoint.

    Args:
        frames: folder of the regions' frames (see pretrain.frames), which every worker reaches.
        log: JSON lines of step, epoch, loss, arrow (training accuracy), val_arrow, pairs_per_s.

    Raises:
        UserError: the cluster has fewer CPUs or GPUs than the workers need.
        KeyboardInterrupt: it was interrupted; the last checkpoint is kept.
    """
    _check_resources(config)
    loop = {
        "config": config.model_dump_json(),
        "regions": (regions[Role.TRAIN], regions[Role.VAL]),
        "frames": str(frames.resolve()),
        "log": str(log.resolve()),
    }
    trainer = ray.train.torch.TorchTrainer(
        _train_worker,
        train_loop_config=loop,
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.ray.train_workers, use_gpu=config.ray.use_gpu
        ),
        run_config=_run_config(config, storage, name),
    )
    total = config.pretrain.epochs * config.pretrain.steps_per_epoch
    with reporter.follow(log, "pretrain", total, "step"), interruptible():
        result = trainer.fit()
    net = TapNet(config.pretrain.preset)
    optimizer, _ = make_optimizer(net, config.pretrain)
    best = result.get_best_checkpoint("val_arrow", "max")  # the latest may have learned crops by heart
    assert best is not None  # every epoch reports one
    with best.as_directory() as folder:
        load_training(Path(folder) / "state.safetensors", net, optimizer)
    return net


def _run_config(config: JobConfig, storage: Path, name: str) -> ray.train.RunConfig:
    return ray.train.RunConfig(
        name=name,
        storage_path=str(storage.resolve()),
        checkpoint_config=ray.train.CheckpointConfig(
            num_to_keep=config.pretrain.keep_checkpoints, checkpoint_score_attribute="val_arrow"
        ),
        failure_config=ray.train.FailureConfig(
            max_failures=config.ray.max_failures,
            controller_failure_limit=3,  # type: ignore[call-arg]  # Ray's types are those of Train V1
        ),
    )


def _check_resources(config: JobConfig) -> None:
    kind = "GPU" if config.ray.use_gpu else "CPU"
    have = ray.cluster_resources().get(kind, 0)  # type: ignore[no-untyped-call]  # Ray has no type here
    if have < config.ray.train_workers:
        raise UserError(
            f"{config.ray.train_workers} workers need as many {kind}s, the cluster has {have:.0f}",
            where="ray.train_workers",
            todo="ask for fewer workers",
        )


def _train_worker(loop: dict[str, Any]) -> None:
    """What each worker runs; the net and batches know nothing of Ray."""
    config = JobConfig.model_validate_json(loop["config"])
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    rank, world = context.get_world_rank(), context.get_world_size()
    store, sampler = Path(loop["frames"]), config.pretrain.sampler
    train, val = (
        Batches(open_stream(store, part, config, sampler, config.seed), config.pretrain, rank, world, device)
        for part in loop["regions"]
    )
    net = TapNet(config.pretrain.preset)
    initialise(net, torch.Generator().manual_seed(config.seed))
    optimizer, scheduler = make_optimizer(net, config.pretrain)
    done = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            done = load_training(Path(folder) / "state.safetensors", net, optimizer)
    for _ in range(done * config.pretrain.steps_per_epoch):
        scheduler.step()  # the schedule is a function of the step: nothing of it needs saving
    model = ray.train.torch.prepare_model(net)
    log = _Log(Path(loop["log"]), done, rank)
    for epoch in range(done, config.pretrain.epochs):
        metrics = _epoch(epoch, config, model, (optimizer, scheduler), train, val, log)
        _report(epoch, metrics, net, optimizer, rank)


def _epoch(
    epoch: int,
    config: JobConfig,
    model: nn.Module,
    optim: tuple[Any, Any],
    train: Batches,
    val: Batches,
    log: _Log,
) -> dict[str, float]:
    """One epoch of training, then validation; the last record's metrics, over all workers."""
    steps, sums, start = config.pretrain.steps_per_epoch, np.zeros(3), time.perf_counter()
    metrics: dict[str, float] = {}
    for step in range(steps):
        pairs, swapped = train.train(epoch, step)
        loss, arrow = train_step(model, *optim, pairs, swapped, config.pretrain.decorrelation)
        sums += np.array([loss, arrow, 1]) * len(pairs)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            loss, arrow, n = _sum_over_workers(sums)
            metrics = {"loss": loss / n, "arrow": arrow / n, "pairs_per_s": n / (time.perf_counter() - start)}
            if step + 1 == steps:
                share, crops = validate(model, val)
                right, count = _sum_over_workers(np.array([share * crops, crops], np.float64))
                metrics["val_arrow"] = right / count
            log.write({"step": epoch * steps + step + 1, "epoch": epoch, **metrics})
            sums, start = np.zeros(3), time.perf_counter()
    return metrics


def _report(
    epoch: int, metrics: dict[str, float], net: nn.Module, optimizer: torch.optim.Optimizer, rank: int
) -> None:
    """Every rank reports; rank 0 brings the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if rank == 0:
            save_training(Path(folder) / "state.safetensors", net, optimizer, epoch + 1)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=f"epoch_{epoch:05d}")


def _sum_over_workers(values: np.ndarray[Any, Any]) -> list[float]:
    tensor = torch.from_numpy(values)
    if dist.is_initialized() and dist.get_world_size() > 1:
        tensor = tensor.to(ray.train.torch.get_device())
        dist.all_reduce(tensor)
    return [float(value) for value in tensor]


class _Log:
    """Rank 0 appends records; those after the checkpoint that is continued from are dropped."""

    def __init__(self, path: Path, done: int, rank: int) -> None:
        self._path = path if rank == 0 else None
        if self._path:
            old = self._path.read_text().splitlines() if self._path.exists() else []
            kept = [line for line in old if line.endswith("}") and json.loads(line)["epoch"] < done]
            atomic_write(self._path, "".join(line + "\n" for line in kept))

    def write(self, record: dict[str, float]) -> None:
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")
