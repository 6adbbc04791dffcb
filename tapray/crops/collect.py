"""From movies and annotations to the index of a job's labelled crops, and its manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import AnnotationKind, JobConfig, MovieEntry, Role
from tapray.crops.background import bright, holds_foreground
from tapray.crops.budgets import draw_budget
from tapray.crops.draw import Region
from tapray.crops.sites import labelled_crops
from tapray.crops.splits import MovieFacts, SplitRegion, pretrain_regions, split_regions
from tapray.data.annotations import Places, open_event_masks, open_instance_masks, read_places
from tapray.data.movies import Movie, open_movie
from tapray.errors import UserError
from tapray.redaction import redact
from tapray.runfolder import content_hash

CLASS_WORDS = {2: ("known negatives", "events"), 3: ("known negatives", "divisions", "deaths")}


class Inputs:
    """The movies of a job, their split and their labelled crops; each is read once, when first asked for.

    Every attribute raises UserError, naming the file or the key, for what is wrong with it.
    """

    def __init__(self, config: JobConfig, entries: Sequence[MovieEntry]) -> None:
        self.config, self.entries = config, entries

    @cached_property
    def movies(self) -> dict[str, Movie]:
        """The movies by name, opened; no two hold the same frames."""
        movies = {entry.name: open_movie(entry.path, entry.name, entry) for entry in self.entries}
        check_distinct(list(movies.values()))
        return movies

    @cached_property
    def regions(self) -> list[SplitRegion]:
        """Which part of which movie belongs to which split."""
        facts = {}
        for entry in self.entries:
            events = self.places[entry.name].table.query("kind == 'event'")
            longest = int((events["t_end"] - events["t"]).max()) if len(events) else 0
            facts[entry.name] = MovieFacts(self.movies[entry.name].shape, entry.role, entry.field, longest)
        return split_regions(self.config, facts)

    @cached_property
    def places(self) -> dict[str, Places]:
        """What the annotations of every movie say."""
        return {entry.name: read_places(entry, self.movies[entry.name]) for entry in self.entries}

    def regions_of(self, role: Role) -> list[Region]:
        """The regions of a split; of a split that shuffles crops, the whole movies."""
        if role is Role.TRAIN:
            return pretrain_regions(self.config, self.regions)
        return [item.region for item in self.regions if item.role in (role, None)]

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per labelled crop, by movie and frame: crop_id, the row's number, sites.INDEX_COLUMNS, and
        field, the field of view.

        Every split holds every class, and the training split the largest label budget.
        """
        parts = [self._crops_of(number, entry) for number, entry in enumerate(self.entries)]
        index = pd.concat(parts, ignore_index=True)
        if self.config.crops.draw == "sites":
            rng = np.random.default_rng([self.config.seed, 4])
            index = keep_negatives(index, self.config.crops.max_negatives, rng)
        index = index.sort_values(["movie", "t"], kind="stable", ignore_index=True)
        index["group"] = pd.factorize(index["group"])[0]
        index["weight"] = weights(index)
        index.insert(0, "crop_id", np.arange(len(index)))
        check_classes(index, self.config.crops.classes)
        study = self.config.study
        for budget in (min(study.budgets), max(study.budgets)):
            draw_budget(index, budget, study.negatives_per_event, 0, study.budget_unit)
        return index

    def events_kept(self) -> str:
        """How many annotated events are in crops, and of which splits."""
        known = sum(int((places.table["kind"] == "event").sum()) for places in self.places.values())
        events = self.index[self.index["event_id"] >= 0].drop_duplicates(["movie", "event_id", "split"])
        found = events["split"].value_counts()
        shares = ", ".join(f"{role.value} {found.get(role.value, 0)}" for role in Role)
        kept = len(events.drop_duplicates(["movie", "event_id"]))
        lost = f"; {known - kept} lie in no split or too near to its border" if known > kept else ""
        return f"{kept} of {known} annotated events are in crops ({shares}){lost}"

    def _crops_of(self, number: int, entry: MovieEntry) -> pd.DataFrame:
        movie = self.movies[entry.name]
        own = [item for item in self.regions if item.region.movie == entry.name]
        rng = np.random.default_rng([self.config.seed, 3, number])
        masks = open_event_masks(entry, movie, self.places[entry.name])
        config = self.config.crops
        crops = labelled_crops(self.places[entry.name], own, config, rng, masks, self.config.split.fractions)
        if config.background == "reject":
            filled = (crops["label"] > 0) | holds_foreground(crops, self.foreground(entry), config.size)
            crops = crops[filled]
        named = {"movie": entry.name, "field": entry.field or entry.name}
        return crops.assign(**named, group=entry.name + ":" + crops["group"].astype(str))

    def foreground(self, entry: MovieEntry) -> Callable[[int], NDArray[np.bool_]]:
        """Where cells are in a frame (H, W): by instance masks or, where there are none, by brightness."""
        masks = open_instance_masks(entry, self.movies[entry.name])
        if masks is not None:
            return lambda t: masks.read(t, t + 1)[0] > 0
        return lambda t: bright(self.movies[entry.name].grey(t))

    def outlines(self, entry: MovieEntry) -> Callable[[int], NDArray[Any]]:
        """The instance masks of a frame (H, W) or, where there are none, its event masks; 0 is ground.

        All is ground where the movie has neither: a disc around a click is no outline.
        """
        movie = self.movies[entry.name]
        masks = open_instance_masks(entry, movie)
        if masks is not None:
            return lambda t: masks.read(t, t + 1)[0]
        if not any(annotation.kind is AnnotationKind.EVENT_MASKS for annotation in entry.annotations):
            return lambda t: np.zeros(movie.shape[1:], np.uint8)
        events = open_event_masks(entry, movie, self.places[entry.name])
        return lambda t: events(t, t + 1)[0]

    def manifest(self, shards: list[dict[str, Any]], audited: dict[str, float]) -> dict[str, Any]:
        """What was cropped, from where, with which labels and splits.

        Args:
            shards: one record per written shard; audited: what the leakage audit found.

        Returns:
            Plain data for JSON. `digest` is a SHA-256 of all but the paths and the shards' sizes.
        """
        movies = {
            entry.name: {
                **_facts(self.movies[entry.name]),
                "field": entry.field,
                "condition": entry.condition,
            }
            for entry in self.entries
        }
        counts = (self.index["split"] + "/" + self.index["label"].astype(str)).value_counts().sort_index()
        body = {
            "movies": movies,
            "regions": [{"role": item.role, **vars(item.region)} for item in self.regions],
            "crops": self.config.crops.model_dump(mode="json"),
            "split": self.config.split.model_dump(mode="json"),
            "negatives_per_event": self.config.study.negatives_per_event,
            "counts": {str(name): int(n) for name, n in counts.items()},
            "audit": audited,
            "index_sha256": content_hash(self.index.to_csv(index=False)),
            "seed": self.config.seed,
        }
        told = ("sha256", "axes", "picks")  # and not where it lies
        without_paths = {
            **body,
            "movies": {name: [facts[key] for key in told] for name, facts in movies.items()},
        }
        return {**body, "digest": content_hash(without_paths), "shards": shards}


def weights(index: pd.DataFrame) -> NDArray[np.float32]:
    """(n,) every event counts once in its split: its crops share a weight of 1; a negative has 1."""
    of_event = index.groupby(["split", "movie", "event_id"])["event_id"].transform("size")
    return np.where(index["event_id"] >= 0, 1 / of_event, 1).astype(np.float32)


def keep_negatives(index: pd.DataFrame, most: int, rng: np.random.Generator) -> pd.DataFrame:
    """All positives, and at most `most` negatives of each split, whatever movie they are of."""
    negative = index[index["label"] == 0].sample(frac=1, random_state=rng)
    kept = negative[negative.groupby("split").cumcount() < most]
    return index.loc[np.sort(np.concatenate([index.index[index["label"] > 0], kept.index]))]


def check_distinct(movies: Sequence[Movie]) -> None:
    """Raises UserError where two movies hold the same frames: a split by movie would share them."""
    seen: dict[str, Movie] = {}
    for movie in movies:
        other = seen.setdefault(_look(movie), movie)
        if other is not movie:
            what = f"holds the same frames as movie '{other.name}'"
            raise UserError(what, where=movie.path, todo="list it once")


def _look(movie: Movie) -> str:
    """SHA-256 of the shape and up to 8 frames all over a movie: the same however it is stored."""
    digest = sha256(repr(movie.shape).encode())
    for t in np.unique(np.linspace(0, movie.shape[0] - 1, 8).astype(int)):
        digest.update(movie.read(int(t), int(t) + 1).astype(np.float32).tobytes())
    return digest.hexdigest()


def check_classes(index: pd.DataFrame, classes: int) -> None:
    """Raises UserError where a split (column `split`) lacks one of the classes (column `label`)."""
    for role in Role:
        found = set(index.loc[index["split"] == role.value, "label"])
        for label, word in enumerate(CLASS_WORDS[classes]):
            if label not in found:
                counts = index.loc[index["label"] == label, "split"].value_counts()
                crops = ", ".join(f"{other.value} {counts.get(other.value, 0)}" for other in Role)
                raise UserError(
                    f"the {role.value} split holds no {word} (crops: {crops})",
                    where="split",
                    todo="change its order, fractions or roles, or annotate more",
                )


def _facts(movie: Movie) -> dict[str, Any]:
    layout = {"axes": movie.layout.axes, "picks": movie.layout.picks}  # channel and plane
    facts = {"sha256": movie.fingerprint(), "shape": movie.shape, **layout}
    return {**facts, "dtype": str(movie.dtype), "path": redact(str(movie.path))}
