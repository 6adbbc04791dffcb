"""Attribution: it lies where the order in time can be read, and pictures are drawn once each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tapray.model.attribution import attribution
from tapray.pretrain.batches import Batches
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.pictures import Pictures, most_changed
from tapray.pretrain.trainer import Trainer
from tests.pretrain.made import SIZE, config, noise, stream


def fading(seed: int = 0) -> np.ndarray:
    """Noise that fades in the left half alone."""
    movie = noise(8, seed).astype(float)
    movie[:, :, :20] *= np.linspace(4, 0.2, 8)[:, None, None]
    return movie.astype(np.uint16)


def test_attribution_lies_where_time_is_seen() -> None:
    settings = config(batch=32, steps_per_epoch=60, epochs=1, learning_rate=1e-2)
    trainer, batches = Trainer(settings, 0), Batches(stream(fading()), settings)
    for step in range(60):
        trainer.train_step(*batches.train(0, step))
    frames = fading(1)[[2, 3]].astype(np.float32)[None] / 1000
    found = attribution(trainer.net, frames)["evidence"]
    assert found.shape == (1, *frames.shape[2:])
    assert found.min() >= 0
    assert found.max() == 1
    assert found[..., :16].mean() > 1.5 * found[..., 24:].mean()


def test_every_picture_is_drawn_once_and_the_place_stays(tmp_path: Path) -> None:
    settings = config(pictures_every=2, keep_checkpoints=9)
    trainer, saved = Trainer(settings, 0), Checkpoints(tmp_path, 9)
    pictures = Pictures(stream(fading()), settings, 1, saved, tmp_path / "pictures")
    for epoch in range(1, 5):
        saved.save(trainer.tensors(), epoch * settings.steps_per_epoch, [0.5] * epoch, True)
        saved.save(trainer.tensors(), epoch * settings.steps_per_epoch + 1, [0.5] * epoch, False)
    assert [path.name for path in pictures.draw()] == ["epoch_0002.png", "epoch_0004.png"]
    assert pictures.draw() == []
    with Image.open(tmp_path / "pictures" / "epoch_0002.png") as image:
        assert image.width > 300
    shown = most_changed(stream(fading()))
    assert shown.shape == (2, 40, 40)
    assert np.array_equal(shown, most_changed(stream(fading())))
    assert min(shown.shape[1:]) > SIZE
