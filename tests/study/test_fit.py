"""Heads learn what can be learnt, from balanced batches, by their generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.utils import parameters_to_vector

from tapray.config import ClassWeights, HeadKind
from tapray.model.heads import HEADS, Head, HeadOptions, PooledHead, build_head
from tapray.model.tap import FEATURES, TapNet, freeze, initialise
from tapray.model.weights import weights_digest
from tapray.study.fit import Arm, Training, draw_batches, in_batches, logits_of, solve
from tapray.study.space import Settings

SETTINGS = Settings(learning_rate=3e-3, weight_decay=1e-4, dropout=0.2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(n: int = 120, classes: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features whose channel of the class's number rises in the second frame; class 0 is common."""
    labels = torch.cat([torch.zeros(n // 2, dtype=torch.long), torch.arange(n - n // 2) % classes])
    features = 0.3 * torch.randn(n, 2, 4, 8, 8, generator=generator(seed))
    for label in range(classes):
        features[labels == label, 1, label, 2:6, 2:6] += 2
    return features, labels


def fit(
    module: torch.nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    batch: int,
    generator: torch.Generator,
    *,
    augmented: bool = False,
) -> None:
    every = torch.arange(len(labels))
    given = (inputs, labels, [every], [SETTINGS], steps, batch, [generator])
    Training([module], *given, augmented=augmented).advance(steps)


def trained(
    kind: HeadKind, classes: int = 2, seed: int = 0, batch: int = 16, steps: int = 40
) -> tuple[Head, torch.Tensor]:
    features, labels = problem(classes=classes)
    head = build_head(kind, 4, 8, classes, generator(seed), SETTINGS.head)
    front = head.front(features)
    if kind is HeadKind.POOLED:
        head.settle(front)
    fit(head, front.half(), labels, steps, batch, generator(seed))
    return head, front


@pytest.mark.parametrize("kind", HeadKind)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_separable_problem_is_separated(kind: HeadKind, classes: int) -> None:
    head, _ = trained(kind, classes)
    features, labels = problem(classes=classes, seed=1)
    assert not head.training
    logits = in_batches(head, head.front(features))
    assert (logits.argmax(dim=1) == labels).double().mean() > 0.95


@pytest.mark.parametrize("kind", HeadKind)
def test_the_generator_decides_everything_dropout_included(kind: HeadKind) -> None:
    digests = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        digests.append(weights_digest(trained(kind, steps=5)[0]))
        after = torch.rand(1)
        torch.manual_seed(noise)
        assert torch.equal(torch.rand(1), after)  # the global generator stays as it was
    assert digests[0] == digests[1]
    assert digests[0] != weights_digest(trained(kind, seed=1, steps=5)[0])


def test_batches_hold_the_classes_alike_or_as_they_come() -> None:
    labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    drawn = draw_batches(labels, 200, 12, ClassWeights.BALANCED, generator())
    assert drawn.shape == (200, 12)
    assert all(torch.bincount(labels[rows]).tolist() == [4, 4, 4] for rows in drawn)
    assert len(drawn.unique()) == 100
    uneven = draw_batches(labels, 5, 8, ClassWeights.BALANCED, generator())
    assert all(torch.bincount(labels[rows]).tolist() == [3, 3, 2] for rows in uneven)
    natural = draw_batches(labels, 500, 12, ClassWeights.NATURAL, generator())
    share = torch.bincount(labels[natural.flatten()]).double() / natural.numel()
    torch.testing.assert_close(share, torch.tensor([0.9, 0.08, 0.02]).double(), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in HeadKind if HEADS[kind].stacks])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rates", [(0.0, 0.0, 0.0), (0.2, 0.5, 0.1)])
def test_heads_trained_as_one_take_no_notice_of_each_other(
    kind: HeadKind, shared: bool, rates: tuple[float, ...]
) -> None:
    """Each as when it is trained alone, but for the last digits: with its own settings, crops and draws."""
    features, labels = problem()
    settings = [Settings(10**-n, 10**-n, rate) for n, rate in zip((2, 3, 4), rates, strict=True)]
    rows = [torch.arange(0, 120, 1 if shared else n) for n in (1, 2, 3)]
    seeds = [0, 0, 0] if shared else [0, 1, 2]

    def heads(numbers: list[int]) -> list[Head]:
        made = [build_head(kind, 4, 8, 2, generator(n), settings[n].head) for n in numbers]
        inputs = made[0].front(features)
        of = [[own[n] for n in numbers] for own in (rows, settings, [generator(seed) for seed in seeds])]
        Training(made, inputs, labels, of[0], of[1], 30, 8, of[2]).advance(30)
        return made

    together, alone = heads([0, 1, 2]), [heads([n])[0] for n in range(3)]
    others = heads([2, 1])  # in another place, beside others
    for one, same in zip([*together, *others], [*alone, alone[2], alone[1]], strict=True):
        assert not one.training
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, same.state_dict()[name], atol=1e-5, rtol=1e-4)
    front = together[0].front(features)
    every = np.arange(120)
    np.testing.assert_allclose(
        logits_of(together, front, every, size=50),
        np.stack([in_batches(head, front).numpy() for head in together]),
        atol=1e-5,
    )


def test_dropout_differs_among_heads_trained_as_one_by_rate_and_generator_alone() -> None:
    features, labels = problem()
    rates, seeds, groups = (0.0, 0.5, 0.5, 0.0, 0.5), (0, 0, 1, 1, 0), torch.tensor([0, 1, 2, 0, 1])
    made = [build_head(HeadKind.MLP, 4, 8, 2, generator(), HeadOptions(rate)) for rate in rates]
    rows = torch.tensor([0, 61])  # one crop of each class: every generator draws the same batches
    given = ([rows] * 5, [SETTINGS] * 5, 5, 8, [generator(seed) for seed in seeds])
    Training(made, made[0].front(features), labels, *given).advance(5)
    weights = torch.stack([parameters_to_vector(head.parameters()) for head in made])
    apart = torch.cdist(weights, weights, p=torch.inf)
    alike = groups[:, None] == groups
    assert apart[alike].max() < 1e-5
    assert apart[~alike].min() > 1e-3
    assert all("mask" not in name for head in made for name, _ in head.named_buffers())  # none is left


def test_heads_that_draw_for_themselves_are_not_trained_as_one() -> None:
    made = [torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)) for _ in range(2)]
    given = ([torch.arange(12)] * 2, [SETTINGS] * 2, 2, 4, [generator(), generator()])
    training = Training(made, torch.zeros(12, 3), torch.arange(12) % 2, *given)
    with pytest.raises(RuntimeError, match="randomness"):
        training.advance(1)


@pytest.mark.parametrize("kind", [HeadKind.LINEAR, HeadKind.MLP])
def test_a_training_that_is_looked_at_goes_on_as_one_that_is_not(kind: HeadKind) -> None:
    """Dropout included."""
    features, labels = problem()
    digests = []
    for parts in ([20], [5, 1, 14]):
        head = build_head(kind, 4, 8, 2, generator(), SETTINGS.head)
        given = ([torch.arange(120)], [SETTINGS], 20, 8, [generator()])
        training = Training([head], head.front(features), labels, *given)
        for steps in parts:
            training.advance(steps)
        assert training.done == 20
        digests.append(weights_digest(head))
    assert digests[0] == digests[1]


def test_an_arm_trains_its_encoder_and_a_frozen_one_stays() -> None:
    frames = torch.randn(12, 2, 16, 16, generator=generator())
    labels = torch.arange(12) % 2
    for frozen in (False, True):
        encoder = TapNet("unet-8s2")
        initialise(encoder, generator())
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        head = build_head(HeadKind.POOLED, FEATURES, 8, 2, generator())
        if frozen:
            freeze(encoder)
            fronts = head.front(in_batches(encoder.features, frames))
            fit(head, fronts, labels, 3, 4, generator())
        else:
            arm = Arm(encoder, head)
            assert arm(frames).shape == (12, 2)
            fit(arm, frames, labels, 3, 4, generator(), augmented=True)
            assert not encoder.training
        after = encoder.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        used = {name for name in before if name.startswith(("backbone", "projection"))}
        assert changed == (set() if frozen else used)


def test_batches_of_inputs_come_back_in_order_without_gradient() -> None:
    inputs = np.arange(10, dtype=np.float16)[:, None]
    layer = torch.nn.Linear(1, 1)
    for given in (inputs, torch.from_numpy(inputs)):
        out = in_batches(layer, given, size=3)
        assert not out.requires_grad
        torch.testing.assert_close(out, layer(torch.from_numpy(inputs).float()).detach())


def settled(classes: int = 2) -> tuple[PooledHead, torch.Tensor, torch.Tensor]:
    features, labels = problem(classes=classes)
    features = features + 0.5 * torch.randn(features.shape, generator=generator(5))
    head = build_head(HeadKind.POOLED, 4, 8, classes, generator())
    assert isinstance(head, PooledHead)
    front = head.front(features)
    head.settle(front)
    return head, front, labels


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(("kind", "weight"), [("balanced", "balanced"), ("natural", None)])
def test_a_solved_head_is_the_ridge_logistic_regression_of_scikit_learn(
    penalty: float, kind: str, weight: str | None
) -> None:
    head, front, labels = settled()
    solve(head, front, labels, Settings(weight_decay=penalty, class_weights=ClassWeights(kind)))
    # two rows of weights of opposite sign carry half the penalty of their one difference
    theirs = LogisticRegression(C=2 / (penalty * len(labels)), class_weight=weight, max_iter=5000, tol=1e-8)
    theirs.fit(head.standardise(front).numpy(), labels.numpy())
    logits = in_batches(head, front)
    expected = theirs.decision_function(head.standardise(front).numpy())
    np.testing.assert_allclose((logits[:, 1] - logits[:, 0]).numpy(), expected, atol=2e-3)


def test_a_solved_head_tells_three_classes_apart_and_lives_without_one_of_them() -> None:
    head, front, labels = settled(classes=3)
    solve(head, front, labels, Settings(weight_decay=0.1))
    assert (in_batches(head, front).argmax(dim=1) == labels).double().mean() > 0.95
    head, front, labels = settled(classes=3)
    two = labels < 2
    solve(head, front[two], labels[two], Settings(weight_decay=0.1))
    found = in_batches(head, front)
    assert torch.isfinite(found).all()
    assert (found[two].argmax(dim=1) == labels[two]).double().mean() > 0.95
