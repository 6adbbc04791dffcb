"""Checkpoints of a training run: files of tensors, each whole or not there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from tapray.atomic import FULL_DISK, SUFFIX, atomic_write
from tapray.errors import UserError
from tapray.model.weights import contiguous

LATE_S = 60  # that a file server may take to show a file to another machine
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Saved:
    """A checkpoint: the steps done, and the validation accuracy after each epoch so far."""

    path: Path
    step: int
    scores: tuple[float, ...]
    scored: bool  # it was made at the end of an epoch, so that the last score is its own

    def tensors(self) -> Tensors:
        """Its tensors, on the CPU.

        Raises:
            FileNotFoundError: it has been removed meanwhile.
        """
        with may_be_gone(self.path):
            return load_file(self.path)


class Checkpoints:
    """The checkpoints in a folder that all workers share: the `keep` latest and the `keep` best."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep
        self._waiting: list[tuple[float, Path, bytes]] = []  # score, -1 where it has none, for a full disk

    def save(self, tensors: Mapping[str, torch.Tensor], step: int, scores: list[float], scored: bool) -> bool:
        """Writes a checkpoint and removes those that are not kept; False if the disk is full.

        Then the ones that are there stay, and training can go on. The best epoch that found no room is kept
        in memory and written before the next, so that a disk that was full for a while changes nothing.
        """
        facts = {"step": str(step), "scores": json.dumps(scores), "scored": json.dumps(scored)}
        data = save(contiguous(tensors), facts)
        path = self.folder / f"step_{step:08d}.safetensors"
        self._waiting.append((scores[-1] if scored else -1.0, path, data))
        if not self._flush():
            best = [max(self._waiting, key=lambda one: one[0])]
            self._waiting = best if best[0][0] >= 0 else []
            return False
        return True

    def _prune(self) -> None:
        """Removes those that are not kept."""
        there = self.all()
        kept = {saved.path for saved in [*there[-self._keep :], *_best_first(there)[: self._keep]]}
        for saved in there:
            if saved.path not in kept:
                saved.path.unlink(missing_ok=True)

    def _flush(self) -> bool:
        """Writes those that wait, the oldest first; False if one finds no room."""
        while self._waiting:
            _, path, data = self._waiting[0]
            try:
                atomic_write(path, data)
            except OSError as error:
                if error.errno not in FULL_DISK:
                    raise
                return False
            del self._waiting[0]
            self._prune()
        return True

    def all(self) -> list[Saved]:
        """Every readable checkpoint, the oldest first; another process may remove some meanwhile."""
        found = []
        for path in sorted(self.folder.glob("step_*.safetensors")):
            with suppress(SafetensorError, FileNotFoundError), may_be_gone(path):
                with safe_open(path, framework="pt") as opened:
                    facts = opened.metadata()
                scores = tuple(json.loads(facts["scores"]))
                found.append(Saved(path, int(facts["step"]), scores, json.loads(facts["scored"])))
        return found

    def awaited(self, wanted: Callable[[Saved], bool]) -> Saved | None:
        """The first that another process has written so; a file server may show it late. None: it did not."""
        deadline = time.monotonic() + LATE_S
        while True:
            if found := next(filter(wanted, self.all()), None):
                return found
            if time.monotonic() > deadline:
                return None
            time.sleep(0.5)

    def clear(self) -> Saved | None:
        """The one to go on from; what a killed process has left half-written is removed."""
        for path in self.folder.glob(f".step_*{SUFFIX}"):
            path.unlink(missing_ok=True)
        return self.latest()

    def latest(self) -> Saved | None:
        """The one to go on from."""
        there = self.all()
        return there[-1] if there else None

    def best(self) -> Saved:
        """The epoch of highest validation accuracy; later ones may have learned crops by heart.

        Raises:
            UserError: there is none.
        """
        ranked = _best_first(self.all())
        if not ranked:
            raise UserError("holds no checkpoint", where=self.folder, todo="free some space and run again")
        return ranked[0]


@contextmanager
def may_be_gone(path: Path) -> Iterator[None]:
    """Safetensors has PyTorch open files, which tells of one that is gone by a RuntimeError.

    Raises:
        FileNotFoundError: in its place.
    """
    try:
        yield
    except RuntimeError as error:
        if path.exists():
            raise
        raise FileNotFoundError(path) from error


def _best_first(there: list[Saved]) -> list[Saved]:
    """Those at the end of an epoch, the first of equals first."""
    scored = [saved for saved in there if saved.scored]
    return sorted(scored, key=lambda saved: (-saved.scores[-1], saved.step))
