"""What a search varies: each arm its own axes, the same names everywhere."""

from __future__ import annotations

import itertools

import pytest

from tapray.config import ClassWeights, Dimension, HeadKind, Init, Layer, Pooling
from tapray.study.space import Choice, Range, Settings, first, settings_of, solved, space, usual

ARMS = [*itertools.product(Init, HeadKind)]
USUAL = (Dimension.LEARNING_RATE, Dimension.WEIGHT_DECAY, Dimension.DROPOUT)


@pytest.mark.parametrize(("init", "head"), ARMS)
def test_an_arm_has_the_axes_that_mean_something_to_it(init: Init, head: HeadKind) -> None:
    axes = space(init, head, [*Dimension])
    assert Dimension.WEIGHT_DECAY in axes
    assert (Dimension.LEARNING_RATE in axes) == (not solved(init, head))
    assert (Dimension.LAYER in axes) == (init.frozen and init.is_tap)
    assert (Dimension.AUGMENT in axes) == (not init.frozen)
    assert (Dimension.WIDTH in axes) == (head in (HeadKind.MLP, HeadKind.RESNET))
    assert (Dimension.POOLING in axes) == (head is HeadKind.POOLED)
    assert (Dimension.DROPOUT in axes) == (head is not HeadKind.LINEAR and not solved(init, head))
    assert space(init, head, USUAL) == {name: axes[name] for name in axes if name in USUAL}


@pytest.mark.parametrize(("init", "head"), ARMS)
def test_the_first_setting_lies_in_the_space(init: Init, head: HeadKind) -> None:
    axes, tried = space(init, head, [*Dimension]), first(init, head, [*Dimension])
    assert set(tried) == set(axes)
    for name, axis in axes.items():
        if isinstance(axis, Choice):
            assert tried[name] in axis.values
        else:
            assert isinstance(axis, Range)
            assert axis.low <= tried[name] <= axis.high


def test_settings_are_read_back_from_a_record() -> None:
    record = {"init": "tap", "trial": 3, "width": 32.0, "layer": "backbone", "class_weights": "natural"}
    found = settings_of(Init.TAP, HeadKind.MLP, {**record, "pooling": "whole", "learning_rate": 0.5})
    assert found == Settings(
        learning_rate=0.5,
        width=32,
        layer=Layer.BACKBONE,
        class_weights=ClassWeights.NATURAL,
        pooling=Pooling.WHOLE,
    )
    assert isinstance(found.width, int)
    assert settings_of(Init.TAP, HeadKind.POOLED, {}) == usual(Init.TAP, HeadKind.POOLED)


def test_what_is_fixed_holds_for_arms_that_have_such_a_thing() -> None:
    fixed: dict[Dimension, float | str] = {Dimension.LAYER: "backbone", Dimension.WIDTH: 32.0}
    found = settings_of(Init.TAP, HeadKind.MLP, {}, fixed)
    assert (found.layer, found.width) == (Layer.BACKBONE, 32)
    for init in (Init.DIFFERENCE, Init.END_TO_END):
        assert settings_of(init, HeadKind.LINEAR, {}, fixed) == usual(init, HeadKind.LINEAR)
