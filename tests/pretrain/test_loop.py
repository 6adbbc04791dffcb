"""The training loop: continued bitwise, ended early, blind where there is no arrow."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tapray.atomic import SUFFIX
from tapray.config import PretrainConfig
from tapray.errors import UserError
from tapray.model.augment import augment
from tapray.model.weights import weights_digest
from tapray.pretrain.batches import Batches
from tapray.pretrain.checkpoints import Checkpoints
from tapray.pretrain.loop import Team, accuracy_of, finished, result, resume, run, validate
from tapray.pretrain.trainer import Trainer
from tests.pretrain.made import config, noise, stream
from tests.pretrain.test_checkpoints import small_disk

__all__ = ["small_disk"]


def go(settings: PretrainConfig, folder: Path, team: Team | None = None) -> Trainer:
    """The loop as a process runs it that knows nothing of one before it."""
    trainer, batches = Trainer(settings, 0), Batches(stream(noise()), settings)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder, settings.keep_checkpoints)
    run(trainer, batches, batches, checkpoints, folder / "log.jsonl", team or Team())
    return trainer


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "one_cycle", "optimizer": "adam"},
        {"schedule": "cyclic", "optimizer": "adamw"},
        {"schedule": "cosine", "ema": 0.9, "precision": "bf16"},
    ],
)
def test_stopped_in_the_middle_of_any_epoch_it_ends_with_the_same_weights(
    tmp_path: Path, options: dict[str, object]
) -> None:
    settings = config(epochs=3, steps_per_epoch=12, **options)
    undisturbed = weights_digest(go(settings, tmp_path / "a").result)
    assert [record["step"] for record in records(tmp_path / "a")] == [10, 12, 22, 24, 34, 36]
    for answers, step in (([True], 10), ([False, False, True], 24)):  # within an epoch, and at an epoch's end
        team = Team(stop=iter(answers).__next__)
        assert go(settings, tmp_path / "b", team).step == step
    assert weights_digest(go(settings, tmp_path / "b").result) == undisturbed
    for one, other in zip(records(tmp_path / "a"), records(tmp_path / "b"), strict=True):
        for key in ("step", "epoch", "loss", "arrow", "val_arrow", "rate"):
            assert one.get(key) == other.get(key)
    written = records(tmp_path / "b")
    assert weights_digest(go(settings, tmp_path / "b").result) == undisturbed
    assert records(tmp_path / "b") == written  # a finished run is not trained again


def test_checkpoints_within_an_epoch_and_what_came_after_them_is_done_again(tmp_path: Path) -> None:
    settings = config(epochs=1, steps_per_epoch=20, checkpoint_every=7, keep_checkpoints=9)
    undisturbed = weights_digest(go(settings, tmp_path).net)
    assert [record["step"] for record in records(tmp_path)] == [7, 10, 14, 20]
    assert [saved.step for saved in Checkpoints(tmp_path, 9).all()] == [7, 14, 20]
    for step in (20, 14):
        (tmp_path / f"step_{step:08d}.safetensors").unlink()
    assert weights_digest(go(settings, tmp_path).net) == undisturbed
    assert [record["step"] for record in records(tmp_path)] == [7, 10, 14, 20]


def test_every_worker_goes_on_from_the_checkpoint_that_the_first_finds(tmp_path: Path) -> None:
    settings = config(epochs=1, steps_per_epoch=20, checkpoint_every=10)
    go(settings, tmp_path)
    (tmp_path / f".step_00000030.safetensors.half{SUFFIX}").write_text("left by a killed worker")
    # Another worker whose file server shows more than rank 0 has told.
    other = Trainer(settings, 0)
    told = Team(rank=1, world=2, total=lambda values: torch.full_like(values, 10))
    assert resume(other, Checkpoints(tmp_path, 2), told) == []
    assert other.step == 10
    first = Trainer(settings, 0)
    (tmp_path / "step_00000020.safetensors").unlink()
    resume(first, Checkpoints(tmp_path, 2))
    assert weights_digest(first.net) == weights_digest(other.net)
    assert not list(tmp_path.glob(f".*{SUFFIX}"))


def test_a_log_that_a_power_cut_has_damaged_is_gone_on_with(tmp_path: Path) -> None:
    settings = config(epochs=2, steps_per_epoch=10)
    go(settings, tmp_path, Team(stop=lambda: True))
    kept = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(kept + bytes(30) + b'"x": 1}\n')
    go(settings, tmp_path)
    assert [record["step"] for record in records(tmp_path)] == [10, 20]


def test_slow_steps_are_told_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapray.pretrain.loop.EVERY_S", 0.0)
    go(config(epochs=1, steps_per_epoch=4), tmp_path)
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4]


def test_it_ends_when_validation_has_not_become_better() -> None:
    settings = config(epochs=9, steps_per_epoch=2, patience=2)
    assert not finished(settings, 6, [0.5, 0.6, 0.55])
    assert finished(settings, 8, [0.5, 0.6, 0.55, 0.6])
    assert not finished(settings, 8, [0.5, 0.6, 0.55, 0.61])
    assert not finished(settings, 2, [0.5])
    assert finished(settings, 18, [0.5])
    assert not finished(config(epochs=9), 6, [0.6, 0.5, 0.4])


def test_a_run_that_has_ended_early_stays_ended(tmp_path: Path) -> None:
    settings = config(epochs=50, steps_per_epoch=1, patience=1, learning_rate=1e-9)  # it learns nothing
    step = go(settings, tmp_path).step
    assert step < 10
    assert go(settings, tmp_path).step == step


def test_a_record_holds_what_a_person_watches(tmp_path: Path) -> None:
    go(config(), tmp_path)
    record = records(tmp_path)[-1]
    assert record["val_arrow"] <= 1
    assert record["workers"] == 1
    assert record["pairs_per_s"] > 0
    assert 0 < record["wait"] < 1
    assert record["cpu"] > 0
    assert record["memory_gb"] > 0.05


def fill(folder: Path) -> None:
    """Fills the disk to the last byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_a_full_disk_on_the_way_costs_no_step(small_disk: Path, tmp_path: Path) -> None:
    asked = []

    def stop() -> bool:
        """Not asked to stop; the disk is full at the second of three epochs."""
        asked.append(True)
        if len(asked) == 2:
            fill(small_disk)
        else:
            (small_disk / "filler").unlink(missing_ok=True)
        return False

    settings = config(epochs=3, keep_checkpoints=1)
    trainer = go(settings, small_disk, Team(stop=stop))
    assert weights_digest(trainer.net) == weights_digest(go(settings, tmp_path / "other").net)
    assert [record["step"] for record in records(small_disk)] == [3, 6, 9]
    best = Checkpoints(small_disk, 1).best()
    assert best.step == Checkpoints(tmp_path / "other", 1).best().step


def test_a_disk_that_is_full_at_the_end_is_one_line(small_disk: Path) -> None:
    settings, saved = config(keep_checkpoints=1), Checkpoints(small_disk, 1)
    go(settings, small_disk, Team(stop=lambda: bool(fill(small_disk))))
    with pytest.raises(UserError, match="no space is left for the last checkpoint"):
        result(settings, saved)
    (small_disk / "filler").unlink()
    go(settings, small_disk)
    assert result(settings, saved) == saved.best()
    assert [record["step"] for record in records(small_disk)] == [3, 6]


def test_validation_counts_and_leaves_the_net_alone() -> None:
    batches, made = Batches(stream(noise()), config()), Trainer(config(), 0).net
    for training in (True, False):
        made.train(training)
        before = weights_digest(made)
        accuracy, count = validate(made, batches)
        assert count == 16
        assert made.training is training
        assert weights_digest(made) == before
    made.eval()
    right = [
        (made(crops)[0].argmax(dim=1) == first).double().mean().item()
        for crops, first in (batches.validation(step) for step in range(2))
    ]
    assert accuracy == pytest.approx(sum(right) / 2)


def trained_accuracy(
    frames: np.ndarray, held_out: np.ndarray, augment: str = "light", length: int = 2
) -> float:
    settings = config(
        batch=32, epochs=1, steps_per_epoch=40, val_batches=16, learning_rate=1e-2, augment=augment
    )
    trainer, batches = Trainer(settings, 0), Batches(stream(frames, length=length), settings)
    for step in range(settings.steps_per_epoch):
        trainer.train_step(*batches.train(0, step))
    seen = Batches(stream(held_out, length=length), settings)  # augmented: what may tell the order is in it
    return accuracy_of(trainer.net, (seen.train(1, step) for step in range(settings.val_batches)))[0]


@pytest.mark.parametrize("augment", ["none", "light", "paper"])
def test_a_movie_without_an_arrow_stays_at_chance(augment: str) -> None:
    # frames drawn independently: forwards and backwards alike; 512 crops, four standard errors
    assert trained_accuracy(noise(40), noise(40, seed=1), augment) == pytest.approx(0.5, abs=0.09)


def test_an_augmentation_that_gives_the_order_away_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def marked(crops: Tensor, mode: str, generator: torch.Generator) -> Tensor:
        crops = augment(crops, mode, generator)
        return torch.cat([crops[:, :1] + 0.2, crops[:, 1:]], dim=1)

    monkeypatch.setattr("tapray.pretrain.batches.augment", marked)
    assert trained_accuracy(noise(40), noise(40, seed=1)) > 0.9


def test_a_movie_with_an_arrow_does_not() -> None:
    fading = np.linspace(4, 0.2, 8)[:, None, None]
    movie, other = ((noise(8, seed) * fading).astype(np.uint16) for seed in (0, 1))
    assert trained_accuracy(movie, other) > 0.75
    assert trained_accuracy(movie, other, length=3) > 0.6  # one of three
