"""Arrow accuracy on frames that pretraining has not seen."""

from __future__ import annotations

from pathlib import Path

from tapray.config import JobConfig, SamplerKind
from tapray.crops.draw import Region
from tapray.model.tap import TapNet
from tapray.pretrain.batches import Batches
from tapray.pretrain.frames import open_stream
from tapray.pretrain.loop import validate

CROPS = 2048
ARROW_FLOOR = 0.55  # below this the arrow is taken as not found: 0.5 is chance


def arrow_accuracy(config: JobConfig, net: TapNet, regions: list[Region], store: Path) -> dict[str, float]:
    """Share of arrows told right on `regions`, for crops drawn as in training and uniformly.

    Most uniformly drawn crops hold nothing that has a direction in time, so both are given.

    Args:
        store: the folder that holds the regions' frames and weights (see pretrain.frames).

    Returns:
        The share (0 to 1) of at least 2048 crops by the name of the sampler.
    """
    out = {}
    for kind in evaluated(config):
        batches = -(-CROPS // config.pretrain.batch)
        drawn = config.pretrain.model_copy(update={"val_batches": batches})
        stream = open_stream(store, regions, config, kind, config.seed + 1)
        out[kind.value], _ = validate(net, Batches(stream, drawn))
    return out


def evaluated(config: JobConfig) -> list[SamplerKind]:
    """The samplers that the arrow accuracy is given for."""
    return list(dict.fromkeys((config.pretrain.sampler, SamplerKind.UNIFORM)))
