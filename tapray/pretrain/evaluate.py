"""Arrow accuracy on frames that pretraining has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from tapray.config import JobConfig, SamplerKind
from tapray.console import Reporter, Task
from tapray.crops.draw import Region
from tapray.model.tap import TapNet
from tapray.pretrain.batches import Batches
from tapray.pretrain.frames import open_stream
from tapray.pretrain.loop import accuracy_of

CROPS = 2048
ARROW_FLOOR = 0.55  # below this the arrow is taken as not found: 0.5 is chance


def arrow_accuracy(
    config: JobConfig, net: TapNet, regions: list[Region], store: Path, reporter: Reporter
) -> dict[str, float]:
    """Share of arrows told right on `regions`, for crops drawn as in training and uniformly.

    Most uniformly drawn crops hold nothing that has a direction in time, so both are given.

    Args:
        store: the folder that holds the regions' frames and weights (see pretrain.frames).

    Returns:
        The share (0 to 1) of at least 2048 crops by the name of the sampler.
    """
    out, kinds = {}, evaluated(config)
    number = -(-CROPS // config.pretrain.batch)
    with reporter.task("arrow accuracy", number * len(kinds), "batch") as task:
        for kind in kinds:
            stream = open_stream(store, regions, config, kind, config.seed + 1)
            batches = Batches(stream, config.pretrain)
            out[kind.value], _ = accuracy_of(net, _looked_at(batches, number, task))
    return out


def _looked_at(batches: Batches, number: int, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(number):
        yield batches.validation(step)
        task.advance(1)


def evaluated(config: JobConfig) -> list[SamplerKind]:
    """The samplers that the arrow accuracy is given for."""
    return list(dict.fromkeys((config.pretrain.sampler, SamplerKind.UNIFORM)))
