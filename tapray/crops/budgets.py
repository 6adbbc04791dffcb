"""Label budgets: which labelled crops a run may train on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.errors import UserError


def draw_budget(
    index: pd.DataFrame, budget: int, negatives_per_event: int, seed: int, unit: str = "events"
) -> NDArray[np.int64]:
    """Training crops for a label budget, drawn from the seed alone and nested.

    - events: all training crops of so many events, and `negatives_per_event` known negatives for
      each. Classes take turns, so that a budget holds them in equal parts as far as they exist.
    - crops: so many crops, the classes as among all training crops, but at least one crop of each.

    Args:
        index: the crop index (crop_id, movie, label, event_id, split).

    Returns:
        crop_id of the chosen training crops, sorted.

    Raises:
        UserError: fewer events, known negatives or crops exist than asked for.
    """
    rng = np.random.default_rng([seed, 7])
    train = index[index.split == "train"]
    if unit == "events":
        return _events(train, budget, negatives_per_event, rng)
    return _crops(train, budget, rng)


def _events(
    train: pd.DataFrame, events: int, negatives_per_event: int, rng: np.random.Generator
) -> NDArray[np.int64]:
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


def _crops(train: pd.DataFrame, crops: int, rng: np.random.Generator) -> NDArray[np.int64]:
    classes = train.label.nunique()
    if not classes <= crops <= len(train):
        what = (
            f"a label budget of {crops} crops is not between {classes} (one of each class) and {len(train)}"
        )
        raise UserError(what, where="study.budgets", todo="ask for what the training split holds")
    drawn = train.sort_values("crop_id")[["crop_id", "label"]].iloc[rng.permutation(len(train))]
    turn = drawn.groupby("label").cumcount().to_numpy()
    share = (turn + 0.5) / drawn.groupby("label")["label"].transform("size").to_numpy()
    order = np.lexsort([share, turn > 0])  # the first of each class, then the classes as they fill up
    return np.sort(drawn["crop_id"].to_numpy()[order[:crops]])


def count_events(index: pd.DataFrame) -> int:
    """Distinct events among the positive crops."""
    return len(index[index.label > 0].drop_duplicates(["movie", "event_id"]))
