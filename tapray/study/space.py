"""What the search may choose, per kind of arm. All arms get the same number of trials."""

from __future__ import annotations

from tapray.config import Init

# name -> (low, high, logarithmic). Frozen arms train a head alone, the others the encoder too.
Space = dict[str, tuple[float, float, bool]]

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
_FROZEN_FIRST = {"learning_rate": 2e-3, "weight_decay": 1e-2, "dropout": 0.2}
_TRAINED_FIRST = {"learning_rate": 2e-3, "weight_decay": 1e-4, "dropout": 0.2}


def space(init: Init) -> Space:
    """The ranges an arm's search draws from."""
    return _FROZEN if init.frozen else _TRAINED


def first(init: Init) -> dict[str, float]:
    """The setting an arm's search tries first."""
    return _FROZEN_FIRST if init.frozen else _TRAINED_FIRST
