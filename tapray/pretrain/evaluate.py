"""Arrow accuracy on frames that pretraining has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tapray.config import JobConfig, SamplerKind
from tapray.crops.draw import CropStream, Region
from tapray.crops.shards import ShardReader
from tapray.data.movies import Movie
from tapray.model.tap import TapNet
from tapray.pretrain.loop import Batches, validate
from tapray.pretrain.sources import region_source

CROPS = 2048


def arrow_accuracy(
    config: JobConfig, net: TapNet, movies: Mapping[str, Movie], regions: list[Region], shards: Path
) -> dict[str, float]:
    """Share of arrows told right on `regions`, for crops drawn as in training and uniformly.

    Most uniformly drawn crops hold nothing that has a direction in time, so both are given.
    """
    reader, out = ShardReader(shards), {}
    for kind in dict.fromkeys((config.pretrain.sampler, SamplerKind.UNIFORM)):
        update = {"sampler": kind, "val_batches": -(-CROPS // config.pretrain.batch)}
        drawn = config.model_copy(update={"pretrain": config.pretrain.model_copy(update=update)})
        sources = []
        for region in regions:
            movie = movies[region.movie]
            box = (slice(None), slice(region.top, region.bottom), slice(region.left, region.right))
            frames = movie.read(region.start, region.stop)[box]
            sources.append(region_source(drawn, reader, region, movie.shape, frames))
        stream = CropStream(
            sources, config.pretrain.size, config.crops.delta, config.crops.intensity, config.seed + 1
        )
        with torch.inference_mode():
            out[kind.value], _ = validate(net, Batches(stream, drawn.pretrain))
    return out
