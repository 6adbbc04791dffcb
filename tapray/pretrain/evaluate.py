"""Arrow accuracy on frames that pretraining has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tapray.config import JobConfig, SamplerKind
from tapray.crops.draw import CropStream, Region
from tapray.crops.shards import ShardReader
from tapray.data.movies import Movie
from tapray.model.tap import TapNet
from tapray.pretrain.loop import Batches, validate
from tapray.pretrain.sources import region_source

CROPS = 2048
ARROW_FLOOR = 0.55  # below this the arrow is taken as not found: 0.5 is chance


def arrow_accuracy(
    config: JobConfig, net: TapNet, movies: Mapping[str, Movie], regions: list[Region], shards: Path
) -> dict[str, float]:
    """Share of arrows told right on `regions`, for crops drawn as in training and uniformly.

    Most uniformly drawn crops hold nothing that has a direction in time, so both are given.

    Returns:
        The share (0 to 1) of at least 2048 crops by the name of the sampler.
    """
    reader, out = ShardReader(shards), {}
    frames = [movies[r.movie].read(r.start, r.stop)[:, r.top : r.bottom, r.left : r.right] for r in regions]
    for kind in dict.fromkeys((config.pretrain.sampler, SamplerKind.UNIFORM)):
        update = {"sampler": kind, "val_batches": -(-CROPS // config.pretrain.batch)}
        drawn = config.model_copy(update={"pretrain": config.pretrain.model_copy(update=update)})
        sources = [
            region_source(drawn, reader, region, movies[region.movie].shape, own)
            for region, own in zip(regions, frames, strict=True)
        ]
        stream = CropStream(
            sources, config.pretrain.size, config.crops.delta, config.crops.intensity, config.seed + 1
        )
        out[kind.value], _ = validate(net, Batches(stream, drawn.pretrain))
    return out
