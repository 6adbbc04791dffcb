"""Frames of a region with drawing weights: what a crop stream draws from."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from tapray.config import JobConfig
from tapray.crops.draw import Region, Source, make_source
from tapray.crops.samplers import STRIDE, Scores, grid_shape, weights
from tapray.crops.shards import ShardReader


def region_source(
    config: JobConfig, reader: ShardReader, region: Region, shape: tuple[int, int, int], frames: NDArray[Any]
) -> Source:
    """The region's frames (T, h, w) with weights from the movie's score maps, cut to the region.

    Args:
        shape: (T, H, W) of the whole movie, which the score maps cover.
    """
    size, last = config.pretrain.size, region.stop - config.crops.delta
    maps = reader.scores(region.movie, grid_shape(shape[1], shape[2], size))
    top = _first_place(region.top, region.bottom, size)
    left = _first_place(region.left, region.right, size)
    gy, gx = grid_shape(region.bottom - top * STRIDE, region.right - left * STRIDE, size)
    own = (slice(region.start, last), slice(top, top + gy), slice(left, left + gx))
    cut = Scores(maps.change[own], maps.brightness[own])
    tiles = (region.bottom - region.top) * (region.right - region.left) / size**2
    place_weights = weights(cut, config.pretrain.sampler, config.pretrain.sharpness * tiles)
    ranges = reader.ranges(region.movie)[region.start : region.stop]
    offset = (top * STRIDE - region.top, left * STRIDE - region.left)
    return make_source(region, frames, ranges, place_weights, offset)


def _first_place(start: int, stop: int, size: int) -> int:
    """The first candidate place of a movie that lies within [start, stop).

    Where a region is too narrow for one, the last before it: drawing clips crops to the region.
    """
    return min(-(-start // STRIDE), (stop - size) // STRIDE)
