"""Successive halving: of arms that train long, only the best on validation go on to the end.

Source: Jamieson and Talwalkar 2016. Here all of a work wait for each other at each rung, so that which go on
follows from the seed alone and not from what was done first (as in ASHA, Li et al. 2020).
"""

from __future__ import annotations

from typing import Any

from tapray.study.scoring import search_scores
from tapray.study.works import Fitted, Work, prepare

RUNGS = 3  # looks at the validation crops, the last at the end
DIVERGED: dict[str, Any] = {"status": "failed", "error": "the training ran away: its logits are not finite"}


def run_halving(work: Work, factor: int) -> list[dict[str, Any]]:
    """The search trials of a work: at each rung one in `factor` goes on.

    Returns:
        Of each member its status (done, pruned or failed), its scores as they were at its last rung, and
        `rungs`: the average precision on validation by step.
    """
    arms = [prepare(work, [number]) for number in range(len(work.members))]
    found: list[dict[str, Any]] = [{"rungs": {}} for _ in arms]
    trainings = [arm.training for arm in arms if arm.training]  # of all: none is solved
    alive, steps = list(range(len(arms))), trainings[0].steps
    for step in rungs(steps, factor):
        for number in alive:
            trainings[number].advance(step - trainings[number].done)
            (fitted,) = arms[number].fitted(("val",))
            found[number] |= _looked(work, number, fitted, found[number]["rungs"], step)
        alive = [number for number in alive if found[number]["status"] == "done"]
        if step < steps:
            best = sorted(alive, key=lambda number: (-found[number]["val_ap"], number))
            kept = best[: -(-len(alive) // factor)]
            for number in set(alive) - set(kept):
                found[number]["status"] = "pruned"
            alive = sorted(kept)
    return found


def rungs(steps: int, factor: int) -> list[int]:
    """The steps at which trainings are looked at, the last at their end."""
    return sorted({max(1, steps // factor**number) for number in range(RUNGS)})


def _looked(work: Work, number: int, fitted: Fitted, before: dict[int, float], step: int) -> dict[str, Any]:
    if not fitted.finite:
        return DIVERGED
    scores = search_scores(work, work.members[number], fitted)
    return {"status": "done", **scores, "rungs": {**before, step: scores["val_ap"]}}
