"""Attribution over stretches of movies: maps of whole frames, numbers, and the regions that stand out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from skimage.feature import peak_local_max

from tapray.crops.draw import Region
from tapray.crops.normalise import frame_ranges, normalise
from tapray.data.movies import Movie
from tapray.insight.detection import near_events
from tapray.model.attribution import evidence, grad_cam
from tapray.model.dense import frame_features
from tapray.model.tap import TapNet

PAIRS = 32  # frame pairs that are looked at in each part of the data
STRETCHES = 4  # of them, at most: each of another region
INSETS = 8  # regions that stand out
WAYS = ("evidence", "grad_cam")


@dataclass(frozen=True)
class Stretch:
    """Consecutive frame pairs (t, t + delta) of a region, and the events there, in its own pixels."""

    region: Region
    first: int
    pairs: int
    delta: int
    events: pd.DataFrame  # t, t_end, y, x, radius

    @property
    def shape(self) -> tuple[int, int]:
        """Of the region, in pixels."""
        return self.region.bottom - self.region.top, self.region.right - self.region.left

    @property
    def times(self) -> NDArray[np.int64]:
        """First frame of each pair."""
        return np.arange(self.first, self.first + self.pairs)

    def frame(self, movie: Movie, t: int, intensity: str) -> NDArray[np.float32]:
        """Frame t of the region, normalised as crops are: (h, w) or (C, h, w)."""
        raw = movie.read(t, t + 1)
        found: NDArray[np.float32] = normalise(raw, frame_ranges(raw, intensity), intensity)[0]
        r = self.region
        return found[..., r.top : r.bottom, r.left : r.right]

    def inside(self, shape: tuple[int, int], stride: int) -> NDArray[np.bool_]:
        """(P, h, w) which places of maps lie near an event."""
        return np.stack([near_events(self.events, int(t), self.delta, shape, stride) for t in self.times])


def stretches(regions: Sequence[Region], places: dict[str, pd.DataFrame], delta: int) -> list[Stretch]:
    """Where to look: the regions with most events, and of each the frames that hold most of them.

    Args:
        places: of each movie, as `tapray.data.places.Places` holds them.
    """
    found = []
    own = {region: _events(places[region.movie], region) for region in regions}
    chosen = sorted(own, key=lambda region: -len(own[region]))[:STRETCHES]
    for region in chosen:
        most = max(1, min(PAIRS // len(chosen), region.stop - region.start - delta))
        starts = np.arange(region.start, region.stop - delta - most + 1)
        shown = np.searchsorted(np.sort(own[region]["t"]), [starts, starts + most])
        first = int(starts[np.argmax(shown[1] - shown[0])])
        found.append(Stretch(region, first, most, delta, own[region]))
    return found


def _events(table: pd.DataFrame, region: Region) -> pd.DataFrame:
    events = table[table["kind"] == "event"]
    within = (events["t"] >= region.start) & (events["t_end"] < region.stop)
    within &= events["y"].between(region.top, region.bottom, inclusive="left")
    within &= events["x"].between(region.left, region.right, inclusive="left")
    kept = events.loc[within, ["t", "t_end", "y", "x", "radius"]]
    return kept.assign(y=kept["y"] - region.top, x=kept["x"] - region.left)


def attribution_maps(
    net: TapNet, movie: Movie, stretch: Stretch, intensity: str, tell: Callable[[], object]
) -> dict[str, NDArray[np.float32]]:
    """By name of the WAYS, (P, h, w) attribution of every pair, 0 or more; a frame is embedded once.

    evidence: its size; grad_cam: that of the first frame, as published.
    """
    kept, maps = deque[torch.Tensor](maxlen=stretch.delta + 1), dict[str, list[torch.Tensor]]()
    for t in range(stretch.first, stretch.first + stretch.pairs + stretch.delta):
        kept.append(whole_frame(net, stretch.frame(movie, t, intensity)))
        if len(kept) > stretch.delta:
            pair = torch.stack([kept[0], kept[-1]])[None]
            maps.setdefault("evidence", []).append(evidence(net, pair)[0].abs())
            maps.setdefault("grad_cam", []).append(grad_cam(net, pair)[0, 0])
            tell()
    return {way: torch.stack(own).numpy() for way, own in maps.items()}


def whole_frame(net: TapNet, frame: NDArray[np.float32]) -> torch.Tensor:
    """Dense features (32, h, w) of a frame (H, W) or (C, H, W), normalised; the net is left in eval mode."""
    return frame_features(net.eval(), torch.from_numpy(frame))


def strongest_regions(cam: NDArray[np.float32], size: int, stride: int) -> pd.DataFrame:
    """The INSETS places of a map (h, w) that stand out most, no two within half a crop: y, x, attribution.

    y and x are in pixels of the frame.
    """
    reach = max(1, size // (2 * stride))
    peaks = peak_local_max(cam, min_distance=reach, exclude_border=False, num_peaks=INSETS)  # type: ignore[no-untyped-call]
    values = cam[tuple(peaks.T)]
    y, x = (stride * (peaks.T + 0.5) - 0.5).round().astype(int)
    return pd.DataFrame({"y": y, "x": x, "attribution": values})


def window(image: NDArray[np.float32], y: int, x: int, size: int) -> NDArray[np.float32]:
    """(..., size, size) around a place of an image (..., H, W), moved inwards at its borders."""
    top, left = (
        int(np.clip(at - size // 2, 0, full - size))
        for at, full in zip((y, x), image.shape[-2:], strict=True)
    )
    return image[..., top : top + size, left : left + size]


def grey(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, h, w) of frames (n, h, w) or (n, C, h, w): the mean of the channels."""
    found: NDArray[np.float32] = frames if frames.ndim == 3 else frames.mean(axis=1)
    return found
