"""Label budgets: which labelled crops a run may train on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.errors import UserError


def draw_budget(index: pd.DataFrame, events: int, negatives_per_event: int, seed: int) -> NDArray[np.int64]:
    """Rows of the crop index for a budget of `events` positive events.

    All training crops of these events, and `negatives_per_event` known negatives for each. Drawn from
    the seed alone and nested: the rows of a budget of 5 are among those of 10. Classes take turns, so
    that a budget holds them in equal parts as far as they exist.

    Args:
        index: the crop index (crop_id, movie, label, event_id, split).

    Returns:
        crop_id of the chosen training crops, sorted.

    Raises:
        UserError: fewer events, or fewer known negatives, exist than asked for.
    """
    rng = np.random.default_rng([seed, 7])
    train = index[index.split == "train"]
    positive = train[train.label > 0]
    kinds = positive.drop_duplicates(["movie", "event_id"])[["movie", "event_id", "label"]]
    kinds = kinds.sort_values(["movie", "event_id"]).reset_index(drop=True)
    if len(kinds) < events:
        raise UserError(
            f"a label budget of {events} events exceeds the {len(kinds)} training events",
            where="study.budgets",
            todo="ask for fewer or annotate more",
        )
    kinds = kinds.iloc[rng.permutation(len(kinds))]
    turn = kinds.groupby("label").cumcount()
    chosen = kinds.iloc[np.argsort(turn.to_numpy(), kind="stable")][:events]
    crops = positive.merge(chosen[["movie", "event_id"]], on=["movie", "event_id"])
    negative = np.sort(train.loc[train.label == 0, "crop_id"].to_numpy())
    if len(negative) < events * negatives_per_event:
        raise UserError(
            f"{events} events with {negatives_per_event} negatives each exceed the {len(negative)} "
            "known negatives of training",
            where="study.negatives_per_event",
            todo="lower it, raise crops.max_negatives, or annotate more",
        )
    negative = rng.permutation(negative)[: events * negatives_per_event]
    return np.sort(np.concatenate([crops.crop_id.to_numpy(), negative]))


def count_events(index: pd.DataFrame) -> int:
    """Distinct events among the positive crops."""
    return len(index[index.label > 0].drop_duplicates(["movie", "event_id"]))
