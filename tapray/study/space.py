"""What the search may choose, per kind of arm. All arms get the same number of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tapray.config import CHOICES, ClassWeights, Dimension, HeadKind, Init, Layer, Pooling
from tapray.model.heads import HeadOptions


@dataclass(frozen=True)
class Settings:
    """What a search trial chooses."""

    weight_decay: float = 1e-2
    learning_rate: float = 2e-3
    dropout: float = 0.2
    width: int = 64
    pooling: Pooling = Pooling.CENTRE
    layer: Layer = Layer.PROJECTION
    class_weights: ClassWeights = ClassWeights.BALANCED
    augment: str = "light"
    temperature: float | None = None  # None: fitted on validation

    @property
    def head(self) -> HeadOptions:
        """Those of them that shape the head."""
        return HeadOptions(self.dropout, self.width, self.pooling)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[str | int, ...]


Axis = Range | Choice
_NOTHING: Mapping[Dimension, float | str] = MappingProxyType({})
Space = dict[Dimension, Axis]

_COMMON: Space = {
    Dimension.CLASS_WEIGHTS: Choice(CHOICES[Dimension.CLASS_WEIGHTS]),
    Dimension.TEMPERATURE: Range(0.25, 8.0, log=True),
}
_LEARNED: Space = {Dimension.LEARNING_RATE: Range(3e-4, 1e-2, log=True)}
_OF_LAYERS: Space = {Dimension.LAYER: Choice(CHOICES[Dimension.LAYER])}
_OF_HEAD: dict[HeadKind, Space] = {
    HeadKind.LINEAR: {},
    HeadKind.RESNET: {Dimension.DROPOUT: Range(0.0, 0.5), Dimension.WIDTH: Choice((32, 64, 128))},
    HeadKind.MLP: {Dimension.DROPOUT: Range(0.0, 0.5), Dimension.WIDTH: Choice((32, 64, 128))},
    HeadKind.POOLED: {Dimension.POOLING: Choice(CHOICES[Dimension.POOLING])},
}


def solved(init: Init, head: HeadKind) -> bool:
    """Whether the arm is solved (`tapray.study.fit.solve`) and not trained step by step."""
    return init.frozen and head is HeadKind.POOLED


def space(init: Init, head: HeadKind, search: Sequence[Dimension]) -> Space:
    """The axes of an arm's search, among those asked for."""
    every: Space = {**_COMMON, **_OF_HEAD[head]}
    if init.frozen and init.is_tap:
        every |= _OF_LAYERS
    if solved(init, head):
        every |= {Dimension.WEIGHT_DECAY: Range(1e-2, 1e2, log=True)}
    elif init.frozen:
        every |= {Dimension.WEIGHT_DECAY: Range(1e-4, 1.0, log=True)} | _LEARNED
    else:
        every |= {Dimension.WEIGHT_DECAY: Range(1e-6, 1e-2, log=True)} | _LEARNED
        every |= {Dimension.AUGMENT: Choice(CHOICES[Dimension.AUGMENT])}
        if head is HeadKind.POOLED:
            every[Dimension.DROPOUT] = Range(0.0, 0.5)
    return {name: axis for name, axis in every.items() if name in search}


def first(init: Init, head: HeadKind, search: Sequence[Dimension]) -> dict[str, Any]:
    """The setting an arm's search tries first, so that a small allowance is not wasted."""
    settings = replace(usual(init, head), temperature=1.0)
    return {str(name): getattr(settings, name) for name in space(init, head, search)}


def usual(init: Init, head: HeadKind) -> Settings:
    """A sensible setting of an arm; what a search does not vary stays so."""
    if solved(init, head):
        return Settings(weight_decay=1.0)
    return Settings() if init.frozen else Settings(weight_decay=1e-4)


def settings_of(
    init: Init, head: HeadKind, params: Mapping[str, Any], fixed: Mapping[Dimension, float | str] = _NOTHING
) -> Settings:
    """The arm's usual settings, but for those that a study fixes and that a trial or run has of its own.

    Args:
        params: a trial's or run's record; fixed: `study.fixed`, of which an arm heeds the axes that it has.
    """
    kinds = {"pooling": Pooling, "layer": Layer, "class_weights": ClassWeights, "width": int}
    axes = space(init, head, tuple(Dimension))
    own: dict[str, Any] = {str(name): value for name, value in fixed.items() if name in axes}
    own |= {str(name): params[name] for name in Dimension if name in params}
    return replace(usual(init, head), **{k: kinds[k](v) if k in kinds else v for k, v in own.items()})
