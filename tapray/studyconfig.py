"""The section of the configuration that says what a study compares; see ``tapray.config``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tapray.entries import Section


class Init(StrEnum):
    """Where an arm's encoder weights come from and whether they are trained."""

    TAP = "tap"  # pretrained, frozen
    RANDOM_DEFAULT = "random_default"  # Kaiming convolutions, batch norm at 1 and 0, frozen
    RANDOM_PAPER = "random_paper"  # published: batch-norm scales from N(0, 1), frozen
    END_TO_END = "end_to_end"  # random_default, trained on the labels alone
    FINE_TUNE = "fine_tune"  # pretrained, trained on the labels
    IMAGENET = "imagenet"  # a ResNet-18 trained on photographs, frozen
    DIFFERENCE = "difference"  # nothing learned: the second frame minus the first

    @property
    def frozen(self) -> bool:
        """Whether the encoder keeps its weights, so that its features are computed once."""
        return self not in (Init.END_TO_END, Init.FINE_TUNE)

    @property
    def pretrained(self) -> bool:
        """Whether the encoder starts from pretrained weights."""
        return self in (Init.TAP, Init.FINE_TUNE)

    @property
    def is_tap(self) -> bool:
        """Whether the encoder is a time arrow net, pretrained or not."""
        return self not in (Init.IMAGENET, Init.DIFFERENCE)


class HeadKind(StrEnum):
    """What tells events from features; see ``tapray.model.heads``."""

    LINEAR = "linear"
    RESNET = "resnet"
    MLP = "mlp"
    POOLED = "pooled"


class Layer(StrEnum):
    """Which of the encoder's maps a head sees."""

    PROJECTION = "projection"  # the dense features (published)
    BACKBONE = "backbone"  # what they are made from


class Pooling(StrEnum):
    """Where in a crop the pooled head looks."""

    CENTRE = "centre"
    WHOLE = "whole"


class ClassWeights(StrEnum):
    """What a class counts in training."""

    BALANCED = "balanced"  # each class the same (published)
    NATURAL = "natural"  # as many crops as it has


class Dimension(StrEnum):
    """What a search may vary; an arm that has no such thing goes without."""

    LEARNING_RATE = "learning_rate"
    WEIGHT_DECAY = "weight_decay"
    DROPOUT = "dropout"
    WIDTH = "width"  # of the heads mlp and resnet
    POOLING = "pooling"  # of the head pooled
    LAYER = "layer"  # of frozen encoders
    CLASS_WEIGHTS = "class_weights"
    AUGMENT = "augment"  # of the arms that train their encoder
    TEMPERATURE = "temperature"  # explored; without it fitted on validation


CHOICES: dict[Dimension, tuple[str, ...]] = {  # of dimensions that are no numbers
    Dimension.POOLING: tuple(kind.value for kind in Pooling),
    Dimension.LAYER: tuple(kind.value for kind in Layer),
    Dimension.CLASS_WEIGHTS: tuple(kind.value for kind in ClassWeights),
    Dimension.AUGMENT: ("none", "light", "paper"),
}
NUMBERS: dict[Dimension, tuple[float, float]] = {  # lowest and highest of those that are numbers
    Dimension.LEARNING_RATE: (1e-8, 1.0),
    Dimension.WEIGHT_DECAY: (0.0, 1e6),
    Dimension.DROPOUT: (0.0, 0.99),
    Dimension.WIDTH: (1, 4096),
    Dimension.TEMPERATURE: (0.01, 100.0),
}
STARTUP = 4  # trials that tpe and gp draw at random before they model


class StudyConfig(Section):
    """Label budgets x initialisations x heads, over seeds."""

    inits: tuple[Init, ...] = Field((Init.TAP, Init.RANDOM_DEFAULT, Init.END_TO_END), min_length=1)
    heads: tuple[HeadKind, ...] = Field((HeadKind.POOLED, HeadKind.LINEAR), min_length=1)
    budgets: tuple[int, ...] = Field((5, 10), min_length=1)
    budget_unit: Literal["events", "crops"] = "events"  # what a label budget counts
    negatives_per_event: int = Field(10, ge=1)
    seeds: int = Field(5, ge=2)  # an interval over seeds needs two
    trials: int = Field(4, ge=1)  # search trials per cell, the same for every arm
    search: tuple[Dimension, ...] = (Dimension.LEARNING_RATE, Dimension.WEIGHT_DECAY, Dimension.DROPOUT)
    # values of dimensions that are not searched, instead of each arm's usual ones
    fixed: dict[Dimension, float | str] = Field(default_factory=dict)
    sampler: Literal["tpe", "gp", "random", "grid"] = "random"
    # what a search goes for: average precision, or it and a low expected calibration error
    objectives: Literal["ap", "ap_and_ece"] = "ap"
    # settings that are proposed at a time, before any of them is known, and trained in one go where a head
    # allows it; so many seeds too. More of them cost less time each, fewer teach the search sooner
    together: int = Field(8, ge=1)
    # of arms that train their encoder one in so many goes on, at a ninth and a third of the steps if it is 3
    halving: int | None = Field(None, ge=2)
    steps: int = Field(200, ge=1)  # optimiser steps of a head on frozen features
    steps_trained: int = Field(40, ge=1)  # optimiser steps where the encoder is trained too
    # passes over the labelled crops, of either kind of arm, instead of these steps (published: 30)
    epochs: int | None = Field(None, ge=1)
    batch: int = Field(32, ge=2)
    random_draws: int = Field(3, ge=1)  # independent random encoders, shared among the seeds
    imagenet: Path | None = None  # file of torchvision's ResNet-18 weights, for the arm of that name

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        for name in ("inits", "heads", "budgets", "search"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice")
        if min(self.budgets) < 1:
            raise ValueError("budgets must be at least 1")
        if not any(init.is_tap for init in self.inits):
            raise ValueError("inits: name one at least that can be kept as a model")
        if Init.IMAGENET in self.inits and self.imagenet is None:
            raise ValueError("imagenet is not set: name the file of a ResNet-18's weights")
        for name, value in self.fixed.items():
            if name in self.search:
                raise ValueError(f"{name} is searched and fixed: take one")
            if name in CHOICES and value not in CHOICES[name]:
                raise ValueError(f"fixed.{name}: give one of {', '.join(CHOICES[name])}")
            if name in NUMBERS and not _within(value, *NUMBERS[name]):
                low, high = NUMBERS[name]
                raise ValueError(f"fixed.{name}: give a number from {low:g} to {high:g}")
        if self.halving and self.objectives != "ap":
            raise ValueError("halving knows one objective: take it, or objectives: ap")
        if self.halving and self.together < self.halving:
            raise ValueError("halving: of fewer trials than this, proposed together, none is left out")
        if self.sampler in ("tpe", "gp") and self.trials <= max(self.together, STARTUP):
            todo = "give more trials, or fewer together"
            raise ValueError(f"sampler {self.sampler}: no trial is left to learn from others; {todo}")
        if Dimension.TEMPERATURE in self.search and self.objectives == "ap":
            raise ValueError("search: temperature changes no average precision; take objectives: ap_and_ece")
        return self


def _within(value: float | str, low: float, high: float) -> bool:
    return isinstance(value, float) and low <= value <= high
