"""The cells of a study: what is crossed, and how many of a cell's members are trained together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tapray.config import HeadKind, Init, JobConfig
from tapray.model.encoders import draws
from tapray.model.heads import HEADS
from tapray.study.space import solved


@dataclass(frozen=True)
class Cell:
    """What is crossed, never searched."""

    init: Init
    head: HeadKind
    budget: int

    @property
    def name(self) -> str:
        """For example tap-pooled-10."""
        return f"{self.init.value}-{self.head.value}-{self.budget}"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Cell:
        """The cell of a trial's or run's record."""
        return cls(Init(record["init"]), HeadKind(record["head"]), record["budget"])


def cells(config: JobConfig) -> list[Cell]:
    """Every cell of a study: budgets, then initialisations, then heads, as the configuration lists them."""
    study = config.study
    return [
        Cell(init, head, budget) for budget in study.budgets for init in study.inits for head in study.heads
    ]


def together(config: JobConfig, cell: Cell) -> int:
    """How many members of a cell one work may hold.

    Where nothing is gained by training them as one, each is a work of its own, that any free CPU takes.
    """
    waits = config.study.halving is not None and not cell.init.frozen
    return config.study.together if waits or stacks(cell) else 1


def seeds_together(config: JobConfig, cell: Cell) -> Iterator[list[int]]:
    """The seeds of a cell's final runs, in works: only those with the same encoder are trained as one."""
    encoders = draws(cell.init, config)
    size = config.study.together if stacks(cell) else 1
    for encoder in range(encoders):
        own = list(range(encoder, config.study.seeds, encoders))
        yield from (own[first : first + size] for first in range(0, len(own), size))


def stacks(cell: Cell) -> bool:
    """Whether members of a cell are trained, or solved, as one."""
    return cell.init.frozen and (solved(cell.init, cell.head) or HEADS[cell.head].stacks)
