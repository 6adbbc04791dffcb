"""Optimiser and learning rate: what a step does with the gradient."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR

from tapray.config import PretrainConfig


def make_optimizer(net: nn.Module, config: PretrainConfig) -> tuple[Optimizer, LRScheduler]:
    """Adam or AdamW and a schedule, a function of the step alone.

    - one_cycle: a rise over a fifth of all steps, then a cosine down to almost 0.
    - cyclic: published (arXiv 2411.03924, section 3, as in weigertlab/tarrow): from a tenth of the rate up in
      an epoch and back in the next, each time to 0.9 of the height before.
    - cosine: a straight rise over `warmup` steps, then a cosine down to 0.
    """
    kind = Adam if config.optimizer == "adam" else AdamW
    optimizer = kind(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    total = config.epochs * config.steps_per_epoch
    if config.schedule == "one_cycle":
        rise = 0.2 if total > 5 else 0.3  # PyTorch divides by rise * total - 1
        return optimizer, OneCycleLR(
            optimizer, max_lr=config.learning_rate, total_steps=total, pct_start=rise
        )
    if config.schedule == "cosine":
        return optimizer, LambdaLR(optimizer, lambda step: _cosine(step, config.warmup, total))
    return optimizer, CyclicLR(
        optimizer,
        base_lr=config.learning_rate / 10,
        max_lr=config.learning_rate,
        step_size_up=config.steps_per_epoch,
        scale_mode="cycle",
        scale_fn=lambda cycle: 0.9**cycle,  # from 1 on
        cycle_momentum=False,
    )


def _cosine(step: int, warmup: int, total: int) -> float:
    """Share of the highest learning rate."""
    warmup = min(warmup, total - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
