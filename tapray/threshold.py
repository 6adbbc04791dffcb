"""The decision threshold of a detector, chosen by searching the validation part of the movies.

Labelled crops are a few places of a movie; a search looks at thousands, of which the hardest decide how many
false events it names. So the threshold is chosen from a search, event by event.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import CropConfig, Role
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.crops.draw import Region
from tapray.data.places import Places, make_table, near
from tapray.detector import Detector
from tapray.predict import find_events, scan
from tapray.study.metrics import half_way

LEAST = 0.02  # places that are less probable than this are no candidates
MOST_PAIRS = 64  # frame pairs of a region that are searched: those with most events


@dataclass(frozen=True)
class Choice:
    """A threshold, and what a search of the validation part names with it.

    named: events that are named; false: names where there is known to be no event.
    """

    threshold: float
    events: int
    named: int
    false: int

    def as_dict(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


def choose_threshold(detector: Detector, inputs: Inputs, reporter: Reporter) -> Choice | None:
    """The threshold of highest F1 over events; None where none is found in the validation part."""
    candidate = replace(detector, threshold=LEAST)
    probabilities, labels = [np.empty(0)], [np.empty(0, np.int64)]
    for region in inputs.regions_of(Role.VAL):
        places = inputs.places[region.movie]
        region = densest(region, places.table, detector.crops.delta)
        pairs = region.stop - region.start - detector.crops.delta
        with reporter.task(f"threshold, {region.movie}", pairs, "pair") as progress:
            grid = scan(candidate, inputs.movies[region.movie], region, None, progress)
        found = find_events(candidate, region.movie, *grid)
        shift = {"t": region.start, "t_end": region.start, "y": region.top, "x": region.left}
        found = found.assign(**{name: found[name] + by for name, by in shift.items()})
        own, truth = judged(found, places, region, detector.crops)
        probabilities.append(own)
        labels.append(truth)
    p, label = np.concatenate(probabilities), np.concatenate(labels)
    events = label == 1
    if not (events & (p > 0)).any():
        if events.any():
            n = int(events.sum())
            reporter.warn(f"a search finds none of the {n} events of the validation part: look at its crops")
        return None
    threshold = best_threshold(p, events)
    named = p >= threshold
    return Choice(threshold, int(events.sum()), int((named & events).sum()), int((named & ~events).sum()))


def best_threshold(p: NDArray[np.float64], events: NDArray[np.bool_]) -> float:
    """The threshold of highest F1 over events, of those that name something that was found.

    It lies half-way between the lowest probability that is named and the next one below, or LEAST.

    Args:
        p: (n,) probabilities, 0 of events that no threshold can name; events: (n,) which are events.
    """
    order = np.argsort(p, kind="stable")
    steps, first = np.unique(p[order], return_index=True)
    named = len(p) - first
    right = events.sum() - np.append(0, events[order].cumsum())[first]
    f1, found = 2 * right / (named + events.sum()), steps > 0
    steps, f1 = steps[found], f1[found]
    best = int(f1.argmax())
    return half_way(steps[best], steps[best - 1] if best else LEAST)


def densest(region: Region, table: pd.DataFrame, delta: int) -> Region:
    """The region, cut to the MOST_PAIRS consecutive frame pairs with most events where it has more."""
    first, last = region.start, max(region.start, region.stop - delta - MOST_PAIRS)
    starts = np.arange(first, last + 1)
    t = np.sort(events_in(region, table, delta)["t"].to_numpy())
    counts = np.searchsorted(t, starts + MOST_PAIRS) - np.searchsorted(t, starts)
    start = int(starts[counts.argmax()])
    return replace(region, start=start, stop=min(start + MOST_PAIRS + delta, region.stop))


def events_in(region: Region, table: pd.DataFrame, delta: int) -> pd.DataFrame:
    """The events that a search of the region can find: with a first frame pair and a centre in it."""
    inside = table["t"].between(region.start, region.stop - delta - 1)
    inside &= table["y"].between(region.top, region.bottom - 1) & table["x"].between(
        region.left, region.right - 1
    )
    return table[inside & (table["kind"] == "event")]


def judged(
    found: pd.DataFrame, places: Places, region: Region, crops: CropConfig
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (n,) and labels (n,): 1 events, 0 false names; events that were not found have 0.

    What was found on unknown ground, or near an event that lies beyond the region, is no matter.
    """
    found = found.sort_values("probability", ascending=False, ignore_index=True)
    events = events_in(region, places.table, crops.delta)
    hit = match(found, events, crops.size / 2, crops.margin)
    spots = make_table("negative", 0, found["t"], found["t_end"], found["y"], found["x"], crops.size / 2)
    others = places.table[(places.table["kind"] != "negative") & ~places.table.index.isin(events.index)]
    false = ~hit & ~near(spots, others)
    if not places.exhaustive:
        false &= near(spots, places.table[places.table["kind"] == "negative"])
    counts = hit | false
    missed = len(events) - int(hit.sum())
    probabilities = np.append(found["probability"].to_numpy()[counts], np.zeros(missed))
    return probabilities, np.append(hit[counts], np.ones(missed, bool)).astype(np.int64)


def match(found: pd.DataFrame, events: pd.DataFrame, reach: float, frames: int) -> NDArray[np.bool_]:
    """(n,) whether each found event, in the order given, is nearest to a true one still free.

    Both tables have t, t_end (frames), y and x (px).

    Args:
        reach: px, the largest distance; frames: the largest gap in time.
    """
    hit = np.zeros(len(found), dtype=bool)
    if not len(events):
        return hit
    away = np.hypot(*(found[name].to_numpy()[:, None] - events[name].to_numpy() for name in ("y", "x")))
    gap = np.maximum(
        found["t"].to_numpy()[:, None] - events["t_end"].to_numpy(),
        events["t"].to_numpy() - found["t_end"].to_numpy()[:, None],
    )
    away[(away > reach) | (gap > frames)] = np.inf
    for row in range(len(found)):  # as many as there are events
        nearest = int(away[row].argmin())
        if np.isfinite(away[row, nearest]):
            hit[row], away[:, nearest] = True, np.inf
    return hit
