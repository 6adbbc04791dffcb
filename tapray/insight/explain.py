"""Attribution over stretches of movies: maps of whole frames, numbers, and the regions that stand out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
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
    # the same of places that are annotated as unknown, and of events that go beyond the region
    unknown: pd.DataFrame

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

    def inside(self, stride: int) -> NDArray[np.bool_]:
        """(P, h, w) which places of maps lie near an event."""
        return self._near(self.events, stride)

    def known(self, stride: int) -> NDArray[np.bool_]:
        """(P, h, w) which places of maps count: all but those near what is annotated as unknown. Ground of
        which no annotation speaks counts as free of events, also where not every event is annotated.
        """
        return ~self._near(self.unknown, stride)

    def _near(self, events: pd.DataFrame, stride: int) -> NDArray[np.bool_]:
        shape = -(-self.shape[0] // stride), -(-self.shape[1] // stride)
        return np.stack([near_events(events, int(t), self.delta, shape, stride) for t in self.times])


def stretches(regions: Sequence[Region], places: dict[str, pd.DataFrame], delta: int) -> list[Stretch]:
    """Where to look: the regions with most events, and of each the frames that hold most of them.

    Args:
        places: of each movie, as `tapray.data.places.Places` holds them.
    """
    found = []
    own = {region: _within(places[region.movie], region) for region in regions}
    chosen = sorted(own, key=lambda region: -len(own[region][0]))[:STRETCHES]
    for region in chosen:
        most = max(1, min(PAIRS // len(chosen), region.stop - region.start - delta))
        starts = np.arange(region.start, region.stop - delta - most + 1)
        shown = np.searchsorted(np.sort(own[region][0]["t"]), [starts, starts + most])
        first = int(starts[np.argmax(shown[1] - shown[0])])
        found.append(Stretch(region, first, most, delta, *own[region]))
    return found


def _within(table: pd.DataFrame, region: Region) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events that lie in a region as a whole, and what may hide others; in its own pixels."""
    within = region.holds(*table[["t", "y", "x"]].to_numpy().T) & (table["t_end"] < region.stop)
    event, unknown = (table["kind"] == kind for kind in ("event", "unknown"))
    moved = table.assign(y=table["y"] - region.top, x=table["x"] - region.left)
    columns = ["t", "t_end", "y", "x", "radius"]
    return moved.loc[event & within, columns], moved.loc[unknown | (event & ~within), columns]


@dataclass(frozen=True)
class Seen:
    """What nets see along a stretch.

    maps: by net and WAYS (P, h, w), 0 or more: of evidence its size, of grad_cam that of the first frame, as
    published; film: (P, H, W) uint8, the first frames as a person sees them; number: of the pair that shows
    most events; frames: (2, ..., H, W) of it; features: (32, h, w) of its first frame, under the first net.
    """

    maps: dict[str, dict[str, NDArray[np.float32]]]
    film: NDArray[np.uint8]
    number: int
    frames: NDArray[np.float32]
    features: NDArray[np.float32]


def along(
    nets: Mapping[str, TapNet], movie: Movie, stretch: Stretch, intensity: str, tell: Callable[[], object]
) -> Seen:
    """Goes along a stretch once: each frame is read and normalised once, and embedded once by each net."""
    first, stride = next(iter(nets)), next(iter(nets.values())).backbone.stride
    number = int(np.argmax(stretch.inside(stride).sum(axis=(1, 2))))
    pair = (stretch.first + number, stretch.first + number + stretch.delta)
    kept = {name: deque[torch.Tensor](maxlen=stretch.delta + 1) for name in nets}
    maps: dict[str, dict[str, list[torch.Tensor]]] = {name: {way: [] for way in WAYS} for name in nets}
    film, frames, features = list[NDArray[np.uint8]](), dict[int, NDArray[np.float32]](), torch.empty(0)
    for t in range(stretch.first, stretch.first + stretch.pairs + stretch.delta):
        frame = stretch.frame(movie, t, intensity)
        if t in pair:
            frames[t] = frame
        if t in stretch.times:
            film.append((255 * grey(frame[None])[0].clip(0, 1)).astype(np.uint8))
        for name, net in nets.items():
            kept[name].append(frame_features(net.eval(), torch.from_numpy(frame)))
            if name == first and t == pair[0]:
                features = kept[name][-1]
            if len(kept[name]) > stretch.delta:
                both = torch.stack([kept[name][0], kept[name][-1]])[None]
                maps[name]["evidence"].append(evidence(net, both)[0].abs())
                maps[name]["grad_cam"].append(grad_cam(net, both)[0, 0])
        tell()
    found = {
        name: {way: torch.stack(each).numpy() for way, each in own.items()} for name, own in maps.items()
    }
    return Seen(found, np.stack(film), number, np.stack([frames[t] for t in pair]), features.numpy())


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
    top, left = corner(y, x, size, image.shape[-2:])
    return image[..., top : top + size, left : left + size]


def corner(y: int, x: int, size: int, shape: Sequence[int]) -> tuple[int, int]:
    """Top and left of a square around a place of an image (H, W), moved inwards at its borders."""
    top, left = (max(0, min(at - size // 2, full - size)) for at, full in zip((y, x), shape, strict=True))
    return top, left


def grey(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, h, w) of frames (n, h, w) or (n, C, h, w): the mean of the channels."""
    found: NDArray[np.float32] = frames if frames.ndim == 3 else frames.mean(axis=1)
    return found
