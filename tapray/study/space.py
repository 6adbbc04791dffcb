"""What the search may choose, per kind of arm. All arms get the same number of trials."""

from __future__ import annotations

from tapray.config import HeadKind, Init

# name -> (low, high, logarithmic)
Space = dict[str, tuple[float, float, bool]]

# A pooled head on frozen features is solved (`tapray.study.fit.solve`): only its penalty is to be chosen.
_SOLVED: Space = {"weight_decay": (1e-2, 1e2, True)}
_FROZEN: Space = {
    "learning_rate": (3e-4, 1e-2, True),
    "weight_decay": (1e-4, 1.0, True),
    "dropout": (0.0, 0.5, False),
}
_TRAINED: Space = {
    "learning_rate": (3e-4, 1e-2, True),
    "weight_decay": (1e-6, 1e-2, True),
    "dropout": (0.0, 0.5, False),
}

# The first trial of every cell: a sensible setting, so that a small allowance is not wasted.
_SOLVED_FIRST = {"weight_decay": 1.0}
_FROZEN_FIRST = {"learning_rate": 2e-3, "weight_decay": 1e-2, "dropout": 0.2}
_TRAINED_FIRST = {"learning_rate": 2e-3, "weight_decay": 1e-4, "dropout": 0.2}


def space(init: Init, head: HeadKind) -> Space:
    """The ranges an arm's search draws from."""
    if not init.frozen:
        return _TRAINED
    return _SOLVED if head is HeadKind.POOLED else _FROZEN


def first(init: Init, head: HeadKind) -> dict[str, float]:
    """The setting an arm's search tries first."""
    if not init.frozen:
        return _TRAINED_FIRST
    return _SOLVED_FIRST if head is HeadKind.POOLED else _FROZEN_FIRST
