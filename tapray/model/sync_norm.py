"""Batch norm over the crops of all workers, on any device.

PyTorch's own SyncBatchNorm works on GPUs only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Total(torch.autograd.Function):
    """The sum over all workers; each worker's part has a gradient from all of them."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def synchronised(net: nn.Module) -> None:
    """Makes every batch norm of `net` one over all workers; names of weights stay as they are."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = _Synchronised1d if isinstance(module, nn.BatchNorm1d) else _Synchronised2d


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    """As batch norm in training mode, with means over all workers' x (N, C, ...)."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    count = values.new_tensor([x.numel() / x.shape[1]])
    sums = torch.cat([values.sum(axes), values.square().sum(axes), count])
    sums = _Total.apply(sums)  # type: ignore[no-untyped-call]
    channels, total = x.shape[1], sums[-1]
    mean = sums[:channels] / total
    variance = sums[channels:-1] / total - mean.square()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (total / (total - 1)), norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = norm.weight * torch.rsqrt(variance.clamp(min=0) + norm.eps)
    out: Tensor = (values - mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)
    return out.to(x.dtype)


class _Synchronised1d(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return _forward(self, x) if self.training and _many() else super().forward(x)


class _Synchronised2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return _forward(self, x) if self.training and _many() else super().forward(x)


def _many() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1
