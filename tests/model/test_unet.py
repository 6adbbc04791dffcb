"""The published backbone, compiled and not."""

from __future__ import annotations

import torch

from tapray.model.backbones.unet import UNet


def test_replicated_borders_are_the_same_compiled() -> None:
    net = UNet(4, 4, depth=2, padding_mode="replicate").double()
    x = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for run in (net, torch.compile(net, backend="aot_eager")):
        net.zero_grad()
        out = run(x)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    assert len(found[0]) == 1 + len(list(net.parameters()))
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=1e-9)
