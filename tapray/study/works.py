"""The works in a study's cells: members, each a setting and a seed, trained together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tapray.config import JobConfig
from tapray.crops.budgets import draw_budget
from tapray.model.encoders import build_encoder, draw_of
from tapray.model.heads import Head, PooledHead, build_head
from tapray.model.tap import FEATURES, TapNet
from tapray.study.cells import Cell, stacks
from tapray.study.fit import Arm, Crops, Training, logits_of, solve
from tapray.study.space import Settings, solved
from tapray.study.store import FeatureStore, features, fronts, index_of, rows_of, settled_head

SEARCH_SEED = 1_000_000  # search trials draw labels that no final run draws


@dataclass(frozen=True)
class Member:
    """One training of a cell."""

    settings: Settings
    seed: int


@dataclass(frozen=True)
class Work:
    """Members of a cell, and where their inputs lie."""

    config: JobConfig
    store: Path  # feature folder
    model: Path  # folder of the pretrained net
    cell: Cell
    members: tuple[Member, ...]

    @property
    def steps(self) -> int:
        """Of the training of each member.

        Epochs are passes over as many crops as the search draws for this budget: every seed trains as long,
        whichever others it is trained with.
        """
        study = self.config.study
        if study.epochs:
            return math.ceil(study.epochs * len(_rows(self, SEARCH_SEED)) / study.batch)
        return study.steps if self.cell.init.frozen else study.steps_trained


@dataclass(frozen=True)
class Fitted:
    """A trained arm and its logits (n, K) on the crops of some splits."""

    encoder: TapNet | None  # None: frozen, its features were read
    head: Head
    logits: dict[str, NDArray[np.float64]]
    labels: dict[str, NDArray[np.int64]]
    groups: dict[str, NDArray[np.int64]]
    train: pd.DataFrame
    test: pd.DataFrame

    @property
    def finite(self) -> bool:
        """Whether its training has not run away."""
        return all(np.isfinite(logits).all() for logits in self.logits.values())


def run_work(work: Work, splits: Sequence[str]) -> list[Fitted]:
    """Draws each member's label budget, trains, and applies to `splits`.

    Search trials ask for ("val",) alone, so that they cannot see the test crops.
    """
    found: dict[int, Fitted] = {}
    for group in _groups(work):
        arms = prepare(work, group)
        if arms.training:
            arms.training.advance(arms.training.steps)
        found |= dict(zip(group, arms.fitted(splits), strict=True))
    return [found[number] for number in range(len(work.members))]


def prepare(work: Work, group: Sequence[int]) -> Arms:
    """The untrained arms of some members that are trained as one; solved ones are solved here."""
    build = _frozen if work.cell.init.frozen else _trained
    return build(work, [work.members[number] for number in group])


@dataclass(frozen=True)
class Arms:
    """Some members' arms: modules that turn inputs (N, ...) into logits."""

    work: Work
    modules: list[nn.Module]
    heads: list[Head]
    encoder: TapNet | None
    inputs: Crops
    rows: list[NDArray[np.int64]]
    training: Training | None

    def fitted(self, splits: Sequence[str]) -> list[Fitted]:
        """Of each member, as it stands."""
        index = index_of(self.work.store)
        where = {split: rows_of(self.work.store, split) for split in splits}
        logits = {split: logits_of(self.modules, self.inputs, own) for split, own in where.items()}
        labels = {split: index.label.to_numpy()[own].astype(np.int64) for split, own in where.items()}
        groups = {split: index.group.to_numpy()[own] for split, own in where.items()}
        test = index.iloc[rows_of(self.work.store, "test")]
        return [
            Fitted(
                self.encoder,
                head,
                {split: found[number] for split, found in logits.items()},
                labels,
                groups,
                index.iloc[self.rows[number]],
                test,
            )
            for number, head in enumerate(self.heads)
        ]


@lru_cache(maxsize=64)
def _drawn(folder: Path, budget: int, negatives: int, seed: int, unit: str) -> NDArray[np.int64]:
    return draw_budget(index_of(folder), budget, negatives, seed, unit)


def _rows(work: Work, seed: int) -> NDArray[np.int64]:
    """The label budget of a seed; all trials of a cell have the same."""
    study = work.config.study
    return _drawn(work.store, work.cell.budget, study.negatives_per_event, seed, study.budget_unit)


def _groups(work: Work) -> Iterator[list[int]]:
    """Places of the members that are trained as one: of the same encoder, shape and batches."""
    cell, groups = work.cell, dict[Any, list[int]]()
    stacked = stacks(cell)
    for number, member in enumerate(work.members):
        own = member.settings
        shape = (
            draw_of(cell.init, work.config, member.seed),
            own.layer,
            own.width,
            own.pooling,
            own.class_weights,
        )
        groups.setdefault(shape if stacked else number, []).append(number)
    yield from groups.values()


def _labels(work: Work) -> Tensor:
    return torch.from_numpy(index_of(work.store).label.to_numpy().astype(np.int64))


def _generator(member: Member) -> torch.Generator:
    return torch.Generator().manual_seed(member.seed * 7919 + 11)


def _frozen(work: Work, members: Sequence[Member]) -> Arms:
    cell, study, options = work.cell, work.config.study, members[0].settings
    draw = draw_of(cell.init, work.config, members[0].seed)
    inputs = fronts(work.store, cell.init, draw, cell.head, options.layer, options.pooling)
    channels, side = features(work.store, cell.init, draw, options.layer).shape[2:4]
    rows = [_rows(work, member.seed) for member in members]
    generators = [_generator(member) for member in members]
    heads = [
        build_head(cell.head, channels, side, work.config.crops.classes, generator, member.settings.head)
        for member, generator in zip(members, generators, strict=True)
    ]
    settled = settled_head(work.store, cell.init, draw, cell.head, options.layer, options.pooling)
    for head in heads:
        head.settle_as(settled)
    training = None
    if solved(cell.init, cell.head):
        _solve(work, heads, inputs, rows, members)
    else:
        training = Training(
            heads,
            inputs,
            _labels(work),
            [torch.from_numpy(own) for own in rows],
            [member.settings for member in members],
            work.steps,
            study.batch,
            generators,
        )
    return Arms(work, [*heads], heads, None, inputs, rows, training)


def _solve(
    work: Work,
    heads: Sequence[Head],
    inputs: Crops,
    rows: Sequence[NDArray[np.int64]],
    members: Sequence[Member],
) -> None:
    labels = _labels(work)
    for head, own, member in zip(heads, rows, members, strict=True):
        assert isinstance(head, PooledHead)
        solve(head, inputs[own], labels[own], member.settings)


def _trained(work: Work, members: Sequence[Member]) -> Arms:
    (member,) = members  # each has an encoder of its own
    config, cell = work.config, work.cell
    preset, channels = config.pretrain.preset, config.channels
    draw = draw_of(cell.init, config, member.seed)
    encoder = build_encoder(cell.init, draw, preset, channels, work.model).eval()
    inputs = FeatureStore(work.store).pixels()
    with torch.no_grad():  # and in eval mode: asking for the size must not move batch-norm statistics
        side = encoder.features(torch.zeros(1, *inputs.shape[1:])).shape[-1]
    generator, rows = _generator(member), _rows(work, member.seed)
    head = build_head(cell.head, FEATURES, side, config.crops.classes, generator, member.settings.head)
    arm = Arm(encoder, head)
    training = Training(
        [arm],
        inputs,
        _labels(work),
        [torch.from_numpy(rows)],
        [member.settings],
        work.steps,
        config.study.batch,
        [generator],
        augmented=True,
    )
    return Arms(work, [arm], [head], encoder, inputs, [rows], training)
