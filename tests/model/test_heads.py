"""Heads: shapes, formulas, and weights drawn from a generator of their own."""

from __future__ import annotations

import pytest
import torch

from tapray.config import HeadKind, Pooling
from tapray.model.heads import Head, HeadOptions, LinearHead, PooledHead, build_head

CHANNELS, SIDE = 4, 8


def head(
    kind: HeadKind,
    seed: int = 0,
    classes: int = 3,
    options: HeadOptions = HeadOptions(),  # noqa: B008
) -> Head:
    generator = torch.Generator().manual_seed(seed)
    return build_head(kind, CHANNELS, SIDE, classes, generator, options)


def features(n: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", HeadKind)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_head_gives_logits(kind: HeadKind, classes: int) -> None:
    made = head(kind, classes=classes).eval()
    logits = made(made.front(features()))
    assert logits.shape == (6, classes)
    assert not made.front(features()).requires_grad  # without parameters: kept once for all trials
    assert sum(p.numel() for p in made.parameters()) > 0


@pytest.mark.parametrize("kind", HeadKind)
def test_the_generator_decides_the_weights(kind: HeadKind) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same = head(kind, 1).state_dict(), head(kind, 1).state_dict()
    assert torch.equal(torch.rand(3), expected)  # the global generator stays as it was
    assert all(torch.equal(one[name], same[name]) for name in one)
    if kind is not HeadKind.POOLED:  # starts from zero
        other = head(kind, 2).state_dict()
        assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_linear_head_is_one_layer_on_all_features() -> None:
    made = head(HeadKind.LINEAR)
    weight, bias = made.parameters()
    assert weight.shape == (3, 2 * CHANNELS * SIDE * SIDE)
    expected = features().flatten(1) @ weight.T + bias
    torch.testing.assert_close(made(made.front(features())), expected)


def test_the_resnet_head_does_not_know_the_order_of_frames() -> None:
    made = head(HeadKind.RESNET).eval()
    x = features()
    torch.testing.assert_close(made(x), made(x.flip(1)))
    assert made.stem[0].weight.shape == (64, CHANNELS, 3, 3)


def test_options_shape_the_heads_that_have_them() -> None:
    narrow = HeadOptions(width=16)
    assert head(HeadKind.RESNET, options=narrow).stem[0].weight.shape == (16, CHANNELS, 3, 3)
    assert head(HeadKind.MLP, options=narrow).net[0].out_features == 16
    centre, whole = (head(HeadKind.POOLED, options=HeadOptions(pooling=p)).windows for p in Pooling)
    assert centre.sum(dim=(1, 2)).tolist() == pytest.approx([1, 1])
    assert centre.amax() > 2 * whole.amax()
    assert whole[1].amin() > 0.5 * whole[1].amax()  # nearly even


def test_dropout_is_of_training_alone_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    made = head(HeadKind.MLP, options=HeadOptions(dropout=0.5))
    drop, x = made.net[2], torch.ones(10_000)
    kept = drop(x)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert kept.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(made.eval().net[2](x), x)
    assert "net.2.rate" not in made.state_dict()


def test_the_mlp_head_averages_on_a_grid_of_four() -> None:
    x = features(1)
    front = head(HeadKind.MLP).front(x).view(2, CHANNELS, 4, 4)
    torch.testing.assert_close(front[1, 2, 0, 3], x[0, 1, 2, 0:2, 6:8].mean())


def test_pooled_statistics_are_what_they_say() -> None:
    x, made = features(), head(HeadKind.POOLED)
    assert isinstance(made, PooledHead)
    front = made.front(x).view(6, CHANNELS, 19)
    both = x.amax(dim=(-2, -1)).sum(dim=1)
    torch.testing.assert_close(front[..., 4], both)  # sum of the frames' maxima
    mean = (x * made.windows[0]).sum(dim=(-2, -1))
    torch.testing.assert_close(front[..., 6], mean[:, 1] - mean[:, 0])
    torch.testing.assert_close(front[..., 12], (mean[:, 1] - mean[:, 0]).abs())
    energy = (((x[:, 1] - x[:, 0]) ** 2) * made.windows[0]).sum(dim=(-2, -1)).sqrt()
    torch.testing.assert_close(front[..., 18], energy)


@pytest.mark.parametrize("kind", [HeadKind.LINEAR, HeadKind.RESNET, HeadKind.MLP])
def test_a_settled_head_does_not_know_in_what_units_features_come(kind: HeadKind) -> None:
    x, units = features(20), torch.tensor([100.0, 0.01, 1.0, 7.0])[:, None, None]
    logits = []
    for given in (x, 3 + units * x):
        made = head(kind).eval()
        made.settle(made.front(given))
        other = head(kind).eval()
        other.settle_as(made)
        torch.testing.assert_close(other(other.front(given)), made(made.front(given)))
        again = head(kind, seed=9).eval()
        again.load_state_dict(made.state_dict())
        torch.testing.assert_close(again(again.front(given)), made(made.front(given)))
        logits.append(made(made.front(given)))
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)


def test_a_settled_linear_head_is_one_layer_on_scaled_features() -> None:
    made, x = head(HeadKind.LINEAR), 3 + 5 * features(20)
    assert isinstance(made, LinearHead)
    made.settle(x)
    scaled = made.scaled(x)
    assert scaled.mean(dim=(0, 1, 3, 4)).abs().max() < 1e-5
    assert scaled.std(dim=(0, 1, 3, 4)).tolist() == pytest.approx([1] * CHANNELS)
    torch.testing.assert_close(made(x), made.out(scaled.flatten(1)), rtol=1e-4, atol=1e-4)


def test_a_constant_channel_stays_small() -> None:
    made, x = head(HeadKind.RESNET), features(8)
    x[:, :, 1] = 4
    made.settle(x)
    assert torch.isfinite(made(x)).all()
    assert made.scale[1] == pytest.approx(1000, rel=0.1)
    made.settle(1e-4 * x)  # small as they are, the others count
    torch.testing.assert_close(
        made.scaled(1e-4 * x)[:, :, 0], (x - x[:, :, 0].mean())[:, :, 0] / x[:, :, 0].std()
    )


def test_settled_statistics_stay_in_training() -> None:
    made = head(HeadKind.POOLED)
    fronts = made.front(features(50)) * 3 + 1
    made.settle(fronts)
    made.train()
    kept = {name: value.clone() for name, value in made.state_dict().items()}
    standard = made.norm(fronts)
    assert standard.mean(dim=0).abs().max() < 1e-4
    assert (standard.std(dim=0) - 1).abs().max() < 1e-3
    made(fronts[:2])
    assert all(torch.equal(kept[name], value) for name, value in made.state_dict().items())
    again = head(HeadKind.POOLED)
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again.eval()(fronts), made(fronts))


def test_unsettled_statistics_follow_the_batches() -> None:
    made = head(HeadKind.POOLED).train()
    made(made.front(features(20)) + 5)
    assert made.norm.running_mean.abs().min() > 0
