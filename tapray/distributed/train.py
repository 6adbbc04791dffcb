"""Ray Train: TAP pretraining on any number of workers, continued after any interruption."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch.distributed as dist
from torch import Tensor

from tapray.config import JobConfig, RayConfig, Role
from tapray.console import OnRecord, Reporter
from tapray.crops.draw import Region
from tapray.distributed.cluster import check_resources, for_workers
from tapray.distributed.restarts import fit_to_the_end, waiting_for_room
from tapray.distributed.signals import stoppable
from tapray.model.tap import TapNet
from tapray.pretrain.batches import Batches
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.frames import open_stream
from tapray.pretrain.loop import Team, result, run
from tapray.pretrain.trainer import MEMORY, Trainer, trained

# Seconds that workers have to find room. A cluster that scales itself has to start machines; any number of
# workers starts where there is room already, and looks again when a node that Ray counted (for 15 s) is dead.
_ROOM_NAME = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_ROOM, _ROOM_ELASTIC = "900", "30"


def pretrain(
    config: JobConfig,
    regions: dict[Role, list[Region]],
    frames: Path,
    checkpoints: Path,
    log: Path,
    reporter: Reporter,
    on_record: OnRecord = lambda _: None,
) -> TapNet:
    """Pretrains on the train regions; returns the net of the epoch that is best on the val regions.

    Called again with the same `checkpoints` it continues from the latest.

    Args:
        frames: folder of the regions' frames (see pretrain.frames), which every worker reaches.
        checkpoints: folder, which every worker reaches; Ray's own notes lie in it too.
        log: JSON lines, see pretrain.loop.run; on_record is called with each.

    Raises:
        UserError: the cluster has fewer CPUs or GPUs than the workers need, the workers died again and again,
            or the disk is full.
        KeyboardInterrupt: it was interrupted, or asked to end; the last checkpoint is kept.
    """
    check_resources(config)
    folder = checkpoints.resolve()
    stop = folder / "stop"
    stop.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    loop = {
        **{"config": for_workers(config), "regions": (regions[Role.TRAIN], regions[Role.VAL])},
        **{"frames": str(frames.resolve()), "checkpoints": str(folder), "log": str(log.resolve())},
    }
    saved = Checkpoints(folder, config.pretrain.keep_checkpoints)

    total = config.pretrain.epochs * config.pretrain.steps_per_epoch
    with (
        reporter.follow(log, "pretrain", total, "step", on_record),
        stoppable(stop, reporter.warn),
        _patience(_ROOM_ELASTIC if config.ray.elastic else _ROOM),
    ):
        watch = waiting_for_room(config.ray, stop, reporter.warn)
        fit_to_the_end(partial(_trainer, config.ray, loop, folder), partial(_done, saved), watch)
    best = result(config.pretrain, saved)
    return trained(best.tensors(), config.pretrain.preset, config.channels)


def _done(saved: Checkpoints) -> int:
    """Steps of the latest checkpoint."""
    latest = saved.latest()
    return latest.step if latest else 0


def _trainer(config: RayConfig, loop: dict[str, Any], folder: Path) -> ray.train.torch.TorchTrainer:
    """Of `_train_worker`; Ray's own notes lie in the folder."""
    workers: Any = config.workers if config.elastic else config.workers[0]  # Ray's types are of Train V1
    return ray.train.torch.TorchTrainer(
        _train_worker,
        train_loop_config=loop,
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=config.use_gpu),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(folder),
            worker_runtime_env={"env_vars": MEMORY},  # type: ignore[call-arg]
            failure_config=ray.train.FailureConfig(
                max_failures=config.max_failures,
                controller_failure_limit=100 if config.elastic else 3,  # type: ignore[call-arg]
            ),
        ),
    )


@contextmanager
def _patience(seconds: str) -> Iterator[None]:
    """How long what is fitted in the block waits for room, unless the environment says it."""
    ours = _ROOM_NAME not in os.environ
    os.environ.setdefault(_ROOM_NAME, seconds)
    try:
        yield
    finally:
        if ours:
            del os.environ[_ROOM_NAME]  # another training may have more or less


def _train_worker(loop: dict[str, Any]) -> None:
    """What each worker runs; nothing that it calls knows of Ray."""
    config = JobConfig.model_validate_json(loop["config"])
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    folder = Path(loop["checkpoints"])
    team = Team(context.get_world_rank(), context.get_world_size(), summed, (folder / "stop").exists)
    train, val = (
        Batches(
            open_stream(Path(loop["frames"]), part, config, config.pretrain.sampler, config.seed),
            config.pretrain,
            team.rank,
            team.world,
            device,
        )
        for part in loop["regions"]
    )
    wrap = ray.train.torch.prepare_model
    trainer = Trainer(config.pretrain, config.seed, config.channels, device, wrap, team.world)
    checkpoints = Checkpoints(folder, config.pretrain.keep_checkpoints)
    run(trainer, train, val, checkpoints, Path(loop["log"]), team)


def summed(values: Tensor) -> Tensor:
    """The sum over all workers."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values
