"""Movies and their annotations as a study or a collection file lists them.

This module imports neither torch nor ray. Lengths are in pixels, times in frames, unless said.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from tapray.locations import Location


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AnnotationKind(StrEnum):
    """How events are written down; each kind is one reader in ``tapray.data.annotations``."""

    EVENT_MASKS = "event_masks"  # a stack or folder of masks: 1 division, 2 death
    CTC_TRACKS = "ctc_tracks"  # folder of dense track masks with man_track.txt
    EVENT_TABLE = "event_table"  # CSV: movie, t, y, x, class, quality[, t_end, radius]
    DIVISION_TABLE = "division_table"  # CSV of certain/probable divisions of a partly tracked movie
    TRACK_TABLE = "track_table"  # CSV: id, t, y, x; its steady points are known negatives
    INSTANCE_MASKS = "instance_masks"  # a mask a frame, 0 is ground: where cells are, no events


class Role(StrEnum):
    """The split a whole movie belongs to when splitting by movie."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Annotation(Section):
    """One file or folder of annotations of a movie."""

    kind: AnnotationKind
    path: Location  # may hold {stem}, {name} and {parent} of the movie
    quality: tuple[str, ...] = ("certain",)  # event qualities that count; others are unknown ground
    exhaustive: bool | None = None  # every event is annotated; None: what the kind implies
    overrules: bool = False  # its events and negatives take the place of what others say there
    # ctc_tracks: a track that ends inside the field without children is unknown ground, or a death
    ends: Literal["unknown", "death"] = "unknown"
    frame_tolerance: int = Field(0, ge=0)  # an event may lie so many frames earlier or later
    pixel_tolerance: float = Field(0, ge=0)  # and so far away; no negative is taken there


Channel = Annotated[int, Field(ge=0)]


class Reading(Section):
    """What the user says of a file where it says nothing, or wrongly."""

    axes: str | None = Field(None, pattern=r"^[TCZYXSQ]+$")  # a letter a dimension, overrides the file's
    # needed where there are several; a list of several: seen together
    channel: Channel | Annotated[tuple[Channel, ...], Field(min_length=2)] | None = None
    plane: int | None = Field(None, ge=0)  # of a z-stack, needed where there are several
    pixel_size: float | None = Field(None, gt=0)  # micrometres; None: what the file says
    frame_interval: float | None = Field(None, gt=0)  # seconds; None: what the file says

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if isinstance(self.channel, tuple) and len(set(self.channel)) < len(self.channel):
            raise ValueError("channel names one twice")
        return self


class MovieEntry(Reading):
    """One movie, or as many as its path's wildcards find, with annotations."""

    name: str = Field(
        "", pattern=r"^([A-Za-z0-9_+{}-][A-Za-z0-9_.+{}-]*)?$"
    )  # empty: the file's name without suffix
    path: Location  # may hold the wildcards * ? [ ] and **
    annotations: tuple[Annotation, ...] = ()
    role: Role | None = None  # of the whole movie: train, val or test
    field: str = ""  # field of view, shared by movies of one place; empty: the movie's name
    condition: str = ""  # treatment, cell line...; kept with the movie
    _resolved: bool = PrivateAttr(False)

    @property
    def resolved(self) -> bool:
        """Whether the path is one movie's own, and name, field and annotations are filled in."""
        return self._resolved

    def settle(self) -> None:
        """Marks the entry as resolved."""
        self._resolved = True


class Collection(Section):
    """A collection file: movies for any number of studies."""

    movies: tuple[MovieEntry, ...] = Field(min_length=1)
