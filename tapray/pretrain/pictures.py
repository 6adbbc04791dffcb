"""What the net looks at: attribution over a fixed place of the validation frames, while it learns."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tapray.atomic import atomic_write
from tapray.config import PretrainConfig
from tapray.crops.draw import CropStream, Source
from tapray.crops.normalise import normalise
from tapray.crops.samplers import STRIDE
from tapray.model.attribution import attribution
from tapray.pretrain.checkpoints import Checkpoints, Saved
from tapray.pretrain.trainer import trained

SIDE = 512  # pixels of the frames that are shown, at most


@dataclass
class Pictures:
    """Draws a picture of every so many epochs' checkpoint into `folder`, once each."""

    stream: CropStream  # of the validation frames
    config: PretrainConfig
    channels: int
    checkpoints: Checkpoints
    folder: Path

    def draw(self) -> list[Path]:
        """The new ones."""
        found = []
        for saved in self.checkpoints.all():
            epoch = saved.step // self.config.steps_per_epoch
            path = self.folder / f"epoch_{epoch:04d}.png"
            if saved.scored and epoch % self.config.pictures_every == 0 and not path.exists():
                with suppress(OSError):  # newer checkpoints have taken its place meanwhile
                    self._draw(saved, path)
                    found.append(path)
        return found

    def _draw(self, saved: Saved, path: Path) -> None:
        frames = most_changed(self.stream)
        net = trained(saved.tensors(), self.config.preset, self.channels)
        found = attribution(net, frames[None])["evidence"][0]
        figure = Figure(figsize=(3 * len(frames), 6), layout="constrained")
        axes = figure.subplots(2, len(frames))
        for number, frame in enumerate(frames):
            for row in axes[:, number]:
                row.imshow(frame if frame.ndim == 2 else frame.mean(axis=0), cmap="gray", vmin=0, vmax=1)
                row.set_axis_off()
            axes[0, number].set_title(f"frame {number + 1}", fontsize=9)
            axes[1, number].imshow(found, cmap="magma", vmin=0, vmax=1, alpha=0.6)
        score = f"validation arrow accuracy {saved.scores[-1]:.3f}"
        figure.suptitle(f"where the order in time is read, step {saved.step}, {score}", fontsize=9)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=110)
        atomic_write(path, data.getvalue())


def most_changed(stream: CropStream) -> NDArray[np.float32]:
    """Frames (S, ..., h, w), normalised, around the place of the first movie that the sampler weighs most."""
    source = stream.sources[0]
    pair = int(np.argmax(np.diff(source.pairs, prepend=0)))
    t = pair + source.delta * np.arange(stream.frames)
    frames = normalise(source.frames[t], source.ranges[t], stream.intensity)
    top, left = (max(0, min(at, full - SIDE)) for at, full in _window(source, pair, stream.size))
    cut: NDArray[np.float32] = frames[..., top : top + SIDE, left : left + SIDE]
    return cut


def _window(source: Source, pair: int, size: int) -> list[tuple[int, int]]:
    """For y and x: where a window around the heaviest place begins, and how long the frame is."""
    place = int(np.argmax(np.diff(source.places[pair], prepend=0)))
    corner = np.array(np.unravel_index(place, source.grid)) * STRIDE + size // 2 - SIDE // 2
    return list(zip(corner.tolist(), source.frames.shape[-2:], strict=True))
