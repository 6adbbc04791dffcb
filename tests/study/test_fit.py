"""Heads learn what can be learnt, from balanced batches, by their generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tapray.config import HeadKind
from tapray.model.heads import Head, PooledHead, build_head
from tapray.model.tap import FEATURES, TapNet, freeze, initialise
from tapray.model.weights import weights_digest
from tapray.study.fit import Arm, Settings, balanced, fit, in_batches, solve

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


def trained(
    kind: HeadKind, classes: int = 2, seed: int = 0, batch: int = 16, steps: int = 40
) -> tuple[Head, torch.Tensor]:
    features, labels = problem(classes=classes)
    head = build_head(kind, 4, 8, classes, SETTINGS.dropout, generator(seed))
    front = head.front(features)
    if kind is HeadKind.POOLED:
        head.settle(front)
    fit(head, front.half(), labels, SETTINGS, steps, batch, generator(seed))
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


def test_batches_hold_the_classes_alike() -> None:
    labels = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    members = [torch.nonzero(labels == c).squeeze(1) for c in range(3)]
    drawn = torch.cat([balanced(members, 12, generator(seed)) for seed in range(200)])
    assert torch.bincount(labels[drawn]).tolist() == [800, 800, 800]
    assert len(drawn.unique()) == 100
    assert torch.bincount(labels[balanced(members, 2, generator())]).tolist() == [1, 1, 1]


def test_a_batch_smaller_than_the_classes_still_trains() -> None:
    head, front = trained(HeadKind.LINEAR, classes=3, batch=2)
    assert head(front).isfinite().all()


def test_an_arm_trains_its_encoder_and_a_frozen_one_stays() -> None:
    frames = torch.randn(12, 2, 16, 16, generator=generator())
    labels = torch.arange(12) % 2
    for frozen in (False, True):
        encoder = TapNet("unet-8s2")
        initialise(encoder, generator())
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        head = build_head(HeadKind.POOLED, FEATURES, 8, 2, 0.0, generator())
        if frozen:
            freeze(encoder)
            fronts = head.front(in_batches(encoder.features, frames))
            fit(head, fronts, labels, SETTINGS, 3, 4, generator())
        else:
            arm = Arm(encoder, head)
            assert arm(frames).shape == (12, 2)
            fit(arm, frames, labels, SETTINGS, 3, 4, generator(), augmented=True)
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
    head = build_head(HeadKind.POOLED, 4, 8, classes, 0.0, generator())
    assert isinstance(head, PooledHead)
    front = head.front(features)
    head.settle(front)
    return head, front, labels


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_a_solved_head_is_the_balanced_ridge_logistic_regression_of_scikit_learn(penalty: float) -> None:
    head, front, labels = settled()
    solve(head, front, labels, penalty)
    # two rows of weights of opposite sign carry half the penalty of their one difference
    theirs = LogisticRegression(
        C=2 / (penalty * len(labels)), class_weight="balanced", max_iter=5000, tol=1e-8
    )
    theirs.fit(head.standardise(front).numpy(), labels.numpy())
    logits = in_batches(head, front)
    expected = theirs.decision_function(head.standardise(front).numpy())
    np.testing.assert_allclose((logits[:, 1] - logits[:, 0]).numpy(), expected, atol=2e-3)


def test_a_solved_head_tells_three_classes_apart_and_lives_without_one_of_them() -> None:
    head, front, labels = settled(classes=3)
    solve(head, front, labels, 0.1)
    assert (in_batches(head, front).argmax(dim=1) == labels).double().mean() > 0.95
    head, front, labels = settled(classes=3)
    two = labels < 2
    solve(head, front[two], labels[two], 0.1)
    found = in_batches(head, front)
    assert torch.isfinite(found).all()
    assert (found[two].argmax(dim=1) == labels[two]).double().mean() > 0.95
