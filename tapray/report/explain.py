"""Pictures of attribution: whole frames with the regions that stand out, their insets, and a movie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import tifffile
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from tapray.insight.explain import Stretch, corner, window
from tapray.report.figures import GREY, LOOK, ORANGE, SKY, save_picture
from tapray.report.tables import beside

Frames = NDArray[np.float32]
GIF_SIDE = 480  # pixels, at most
GIF_MS = 150  # milliseconds a frame
CAM: dict[str, Any] = {"cmap": "magma", "vmin": 0, "alpha": 0.55}


def overlay_figure(
    frames: Frames,
    cam: Frames,
    regions: pd.DataFrame,
    insets: Insets,
    events: pd.DataFrame,
    title: str,
    path: Path,
) -> Path:
    """Both frames of a pair with attribution, numbered regions and annotated events, and the insets below;
    none where the map is flat, so that no region stands out.

    Args:
        frames: (2, H, W), shown from 0 to 1; cam: (H, W); regions: y, x.
        events: y, x, radius of those that the frames show.
    """
    height, width = frames.shape[1:]
    with mpl.rc_context(LOOK):
        tall, some = 9 * height / width / 2, len(regions) > 0
        figure = Figure(figsize=(9, tall + (5.2 if some else 0.8)))
        parts: Sequence[Any] = [figure]
        if some:
            parts = list(figure.subfigures(2, 1, squeeze=False, height_ratios=(tall, 4.6))[:, 0])
        top = float(cam.max()) or 1.0
        for number, panel in enumerate(parts[0].subplots(1, 2)):
            panel.imshow(frames[number], cmap="gray", vmin=0, vmax=1)
            if number == 0:
                panel.imshow(cam, vmax=top, **CAM)
            panel.set_axis_off()
            panel.set_title(("frame t, with attribution", "frame t + delta")[number])
            _mark(panel, regions, insets.size, events, (height, width))
        if some:
            _insets(parts[1], insets)
        else:
            figure.supxlabel("no place stands out: the attribution is the same everywhere", color=GREY)
        figure.suptitle(title)
        return save_picture(figure, path)


def _mark(
    panel: Axes, regions: pd.DataFrame, size: int, events: pd.DataFrame, shape: tuple[int, int]
) -> None:
    for number, (y, x) in enumerate(regions[["y", "x"]].to_numpy(int).tolist(), 1):
        top, left = corner(y, x, size, shape)
        panel.add_patch(Rectangle((left - 0.5, top - 0.5), size, size, fill=False, ec=ORANGE, lw=1))
        panel.annotate(str(number), (left + 1, top + 1), color=ORANGE, fontsize=8, va="top")
    for y, x, radius in events[["y", "x", "radius"]].to_numpy():
        panel.add_patch(Circle((x, y), radius, fill=False, ec=SKY, lw=1, ls="--"))


@dataclass(frozen=True)
class Insets:
    """Squares around regions, and what every way of attribution says of them.

    frames: (n, 2, size, size); maps: (n, size, size) by name, 0 or more; others: the same of either sign.
    """

    size: int
    frames: Frames
    maps: Mapping[str, Frames]
    others: Mapping[str, Frames]

    @classmethod
    def around(
        cls,
        regions: pd.DataFrame,
        size: int,
        frames: Frames,
        maps: Mapping[str, Frames],
        others: Mapping[str, Frames],
    ) -> Insets:
        """frames: (2, H, W); maps: (H, W), to be cut; others: (n, size, size). n may be 0."""
        places = regions[["y", "x"]].to_numpy(int).tolist()

        def cut(image: Frames) -> Frames:
            squares = np.empty((len(places), *image.shape[:-2], size, size), image.dtype)
            for square, (y, x) in zip(squares, places, strict=True):
                square[...] = window(image, y, x, size)
            return squares

        return cls(size, cut(frames), {name: cut(own) for name, own in maps.items()}, others)


def _insets(figure: Any, insets: Insets) -> None:
    """A column a region: frame t, frame t + delta, and the first under each kind of attribution.

    A map has one scale for all squares; of what has either sign each square has its own, 0 in the middle.
    """
    ways = {**insets.maps, **insets.others}
    axes = figure.subplots(2 + len(ways), len(insets.frames), squeeze=False)
    for row, name in enumerate(["t", "t + delta", *ways]):
        axes[row, 0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        for number, panel in enumerate(axes[row]):
            panel.imshow(insets.frames[number, int(row == 1)], cmap="gray", vmin=0, vmax=1)
            if name in insets.maps:
                top = float(insets.maps[name].max()) or 1.0
                panel.imshow(insets.maps[name][number], vmax=top, **CAM)
            elif name in insets.others:
                own = insets.others[name][number]
                most = float(np.abs(own).max()) or 1.0
                panel.imshow(own, cmap="coolwarm", vmin=-most, vmax=most, alpha=0.6)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if row == 0:
                panel.set_title(str(number + 1), color=ORANGE)


def enlarged(maps: Frames, shape: tuple[int, int], stride: int) -> Frames:
    """Maps (n, h, w) at a place every `stride` pixels -> (n, H, W), bilinear."""
    whole = (maps.shape[1] * stride, maps.shape[2] * stride)
    found = F.interpolate(torch.from_numpy(maps)[:, None], whole, mode="bilinear")[:, 0]
    values: Frames = found[:, : shape[0], : shape[1]].numpy()
    return values


def write_movies(
    stretch: Stretch,
    frames: NDArray[np.uint8],
    maps: Frames,
    stride: int,
    folder: Path,
    pixel_size: float | None,
) -> list[Path]:
    """attribution.tif, uint8 (P, H, W) of the first frames' attribution, 255 the 99.9 percentile of all, and
    attribution.gif, the same over the frames; one frame at a time is large.

    Args:
        frames: (P, H, W); maps: (P, h, w), a place every `stride` pixels.
    """
    top, pictures = float(np.quantile(maps, 0.999)) or 1.0, list[Image.Image]()

    def greys() -> Iterator[NDArray[np.uint8]]:
        for frame, own in zip(frames, maps, strict=True):
            large = enlarged(own[None], stretch.shape, stride)[0]
            grey = (255 * (large / top).clip(0, 1)).astype(np.uint8)
            pictures.append(_blended(frame, grey))
            yield grey

    tiff, gif = folder / "attribution.tif", folder / "attribution.gif"
    metadata: dict[str, Any] = {"axes": "TYX", "first_frame": stretch.first}
    if pixel_size:
        metadata |= {"spacing": pixel_size, "unit": "um"}
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack", "imagej": False}
    with beside(tiff) as part:
        tifffile.imwrite(part, greys(), shape=frames.shape, dtype=np.uint8, metadata=metadata, **options)
    with beside(gif) as part:
        pictures[0].save(part, save_all=True, append_images=pictures[1:], duration=GIF_MS, loop=0)
    return [tiff, gif]


def _blended(frame: NDArray[np.uint8], grey: NDArray[np.uint8]) -> Image.Image:
    """A small picture of a frame (H, W), with its attribution (H, W) in colour."""
    small = [Image.fromarray(own) for own in (frame, grey)]
    for one in small:
        one.thumbnail((GIF_SIDE, GIF_SIDE))
    below, above = (np.asarray(one) for one in small)
    colours, cover = mpl.colormaps["magma"](above)[..., :3], 0.8 * above[..., None] / 255
    mixed = (1 - cover) * below[..., None] + cover * 255 * colours  # a bright cell must not hide it
    return Image.fromarray(mixed.round().astype(np.uint8))
