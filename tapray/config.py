"""The strict configuration of a job, the same for YAML, command line and Python.

Every section refuses unknown keys. This module imports neither torch nor ray, so that
``tapray --help`` stays quick. Lengths are in pixels, times in frames.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tapray.entries import Annotation as Annotation
from tapray.entries import AnnotationKind as AnnotationKind
from tapray.entries import MovieEntry as MovieEntry
from tapray.entries import Role as Role
from tapray.entries import Section
from tapray.locations import Location
from tapray.studyconfig import CHOICES as CHOICES
from tapray.studyconfig import STARTUP as STARTUP
from tapray.studyconfig import ClassWeights as ClassWeights
from tapray.studyconfig import Dimension as Dimension
from tapray.studyconfig import HeadKind as HeadKind
from tapray.studyconfig import Init as Init
from tapray.studyconfig import Layer as Layer
from tapray.studyconfig import Pooling as Pooling
from tapray.studyconfig import StudyConfig as StudyConfig


class SimulateConfig(Section):
    """Simulated nuclei; see ``tapray.data.simulate`` for what each quantity does."""

    n_movies: int = Field(4, ge=1)
    val_movies: int = Field(1, ge=1)  # of them, the last but those for testing
    test_movies: int = Field(1, ge=1)  # the last
    frames: int = Field(60, ge=2)
    height: int = Field(256, ge=32)
    width: int = Field(256, ge=32)
    n_nuclei: int = Field(28, ge=1)  # at the first frame of a movie
    radius: float = Field(7.5, gt=2)  # mean nucleus radius
    division_rate: float = Field(0.018, ge=0)  # per nucleus and frame
    death_rate: float = Field(0.006, ge=0)  # per nucleus and frame
    growth: bool = True  # nuclei grow between divisions; without it time has no direction
    motion: float = Field(0.8, ge=0)  # standard deviation of the step per frame
    light: float = Field(140, gt=0)  # electrons per pixel of a nucleus: less light, more noise
    seed: int = Field(0, ge=0, lt=2**31)


class CropConfig(Section):
    """Labelled crop pairs: frames t and t + delta at the same place."""

    size: int = Field(48, ge=8)
    delta: int = Field(1, ge=1)
    intensity: Literal["linear", "sqrt"] = "linear"  # applied before the percentiles
    draw: Literal["sites", "uniform"] = "sites"  # at annotated places, or anywhere (published)
    crops_per_frame: int = Field(1000, ge=1)  # draw: uniform only
    area_threshold: int = Field(0, ge=0)  # event pixels a positive crop must exceed (draw: uniform)
    jitter: int = Field(6, ge=0)  # largest shift of a training crop from its site
    crops_per_event: int = Field(8, ge=1)  # jittered training crops per event and frame pair
    max_negatives: int = Field(2000, ge=1)  # known negatives kept per split
    margin: int = Field(2, ge=0)  # frames around an event that are neither event nor negative
    classes: Literal[2, 3] = 2  # event or not; or none, division, death
    background: Literal["keep", "reject"] = "keep"  # reject: no negatives on empty ground
    # frozen features: of each crop by itself, or cut from those of whole frames, which is faster where crops
    # overlap; these see what lies around a crop, so the leakage audit widens crops by their receptive field
    features: Literal["crop", "frame"] = "crop"


class SplitKind(StrEnum):
    """How crops are divided into splits; see ``tapray.crops.splits``."""

    MOVIE = "movie"
    FIELD = "field"  # all movies of a field of view together
    TIME_BLOCK = "time_block"
    TILE = "tile"
    RANDOM_CROP = "random_crop"  # published; leaky


class SplitConfig(Section):
    """Which crops are train, validation and test."""

    kind: SplitKind = SplitKind.MOVIE
    # time_block: order of the blocks in time; tile: order of the strips along the axis.
    order: tuple[Role, Role, Role] = (Role.TRAIN, Role.VAL, Role.TEST)
    # of train, val, test; 0: no part of a movie that is cut, other movies have that role
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    # frames left out between time blocks; None: delta, margin and the longest event's length
    gap: int | None = Field(None, ge=0)
    axis: Literal["y", "x"] = "x"  # tile: the strips lie side by side along this axis
    # k-fold: movies, fields, time blocks or tiles in so many parts; each: one movie or field a part
    folds: Annotated[int, Field(ge=3)] | Literal["each"] | None = None
    fold: int = Field(0, ge=0)  # the part that tests; the next one validates, the rest trains
    allow_leak: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sorted(self.order) != sorted(Role):
            raise ValueError("order must name train, val and test once each")
        if abs(sum(self.fractions) - 1) > 1e-6 or min(self.fractions) < 0:
            raise ValueError("fractions must not be negative and sum to 1")
        if min(self.fractions) == 0 and self.kind not in (SplitKind.TIME_BLOCK, SplitKind.TILE):
            raise ValueError("fractions may be 0 where movies are cut: time_block and tile")
        return self


class SamplerKind(StrEnum):
    """Where pretraining crops are drawn."""

    UNIFORM = "uniform"
    FOREGROUND = "foreground"  # rejects empty ground
    CHANGE = "change"  # favours places where something changes


class PretrainConfig(Section):
    """Time arrow prediction (arXiv 2305.05511, 2411.03924)."""

    preset: str = "unet-12s2"  # a name of tapray.model.backbones
    weights: Path | None = None  # folder of a pretrained model, taken as it is instead of training
    repeats: int = Field(1, ge=1)  # independent pretrainings, shared among the seeds of a study
    size: int = Field(48, ge=16)
    frames: int = Field(2, ge=2, le=8)  # of a crop; more than two are rolled instead of swapped
    # frames from one frame of a crop to the next, drawn from all alike; None: crops.delta
    deltas: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    batch: int = Field(64, ge=2)  # crop pairs a step, over all workers together
    steps_per_epoch: int = Field(100, ge=1)
    epochs: int = Field(8, ge=1)
    patience: int | None = Field(None, ge=1)  # epochs without a better validation accuracy before it ends
    sampler: SamplerKind = SamplerKind.CHANGE
    # change: a crop is the best of sharpness x (how many crops tile the region) uniform candidates
    sharpness: float = Field(0.3, gt=0)
    optimizer: Literal["adam", "adamw"] = "adam"
    schedule: Literal["one_cycle", "cyclic", "cosine"] = "one_cycle"  # cyclic: published
    warmup: int = Field(100, ge=0)  # steps of the cosine schedule's rise
    learning_rate: float = Field(4e-3, gt=0)  # the highest of the schedule
    weight_decay: float = Field(1e-6, ge=0)
    decorrelation: float = Field(0.01, ge=0)
    clip_norm: float | None = Field(None, gt=0)  # largest norm of a step's gradient
    ema: float | None = Field(None, gt=0, lt=1)  # decay of the averaged weights, which are then the result
    augment: Literal["none", "light", "paper"] = "light"
    accumulate: int = Field(1, ge=1)  # parts that a worker's share of a batch goes through the net in
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False  # memory layout of the net
    compile: bool = False  # by torch.compile
    sync_batchnorm: bool = False  # statistics over all workers' crops, not each worker's own
    val_batches: int = Field(8, ge=1)
    # splits whose frames are seen; `test` leaks, and with `val` the last epoch's net is kept
    include: tuple[Role, ...] = Field((Role.TRAIN,), min_length=1)
    checkpoint_every: int | None = Field(None, ge=1)  # steps; None: only at the end of each epoch
    keep_checkpoints: int = Field(2, ge=1)  # of the latest, and of the best epochs
    pictures_every: int = Field(2, ge=1)  # epochs between pictures of what the net looks at

    @model_validator(mode="after")
    def _patience_needs_unseen_frames(self) -> Self:
        if self.patience and Role.VAL in self.include:
            raise ValueError("patience needs validation frames that are not seen: take val out of include")
        return self


class CacheConfig(Section):
    """Pretrained nets and dense features, made once and shared by all studies that want the same."""

    folder: Path | None = None  # None: cache/ beside the run folder
    max_gb: float = Field(20, gt=0)  # of features: those not used for longest go first


class TrackingConfig(Section):
    """Where MLflow keeps parameters, metrics and files."""

    uri: str | None = None  # None: what MLFLOW_TRACKING_URI names; else an SQLite file beside the run folder
    experiment: str = "tapray"


class RayConfig(Section):
    """Where the job runs.

    Nothing here changes the results, save `train_workers`: the crops of a step are the same for
    any number of workers, but each normalises and augments its own share of the batch.
    """

    # None: what RAY_ADDRESS names, as Ray sets it for submitted jobs; else a local cluster for this job
    address: str | None = None
    num_cpus: int | None = Field(None, ge=1)
    # of pretraining; [least, most]: as many as there are places for, more or fewer while it goes on
    train_workers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], int] = 2
    use_gpu: bool = False
    max_failures: int = Field(2, ge=0)
    concurrent_trials: int = Field(2, ge=1)

    @property
    def workers(self) -> tuple[int, int]:
        """The least and the most workers of pretraining."""
        given = self.train_workers
        return given if isinstance(given, tuple) else (given, given)

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change while it goes on."""
        return self.workers[0] < self.workers[1]

    @property
    def kind(self) -> str:
        """Of which resource each worker of pretraining takes one."""
        return "GPU" if self.use_gpu else "CPU"


def _channels(movie: MovieEntry) -> int:
    return len(movie.channel) if isinstance(movie.channel, tuple) else 1


class JobConfig(Section):
    """The whole job: movies -> crops -> pretrain -> features -> study -> report."""

    name: str = Field("study", min_length=1, pattern=r"^[A-Za-z0-9_+-][A-Za-z0-9_.+-]*$")
    out: Path = Path("runs/study")
    mirror: Location | None = None  # path or address (s3://...) of a copy of the run folder
    seed: int = Field(0, ge=0, lt=2**31)
    movies: tuple[MovieEntry, ...] = ()
    collection: Location | None = None  # a file that lists the movies
    simulate: SimulateConfig | None = None
    crops: CropConfig = CropConfig()
    split: SplitConfig = SplitConfig()
    pretrain: PretrainConfig = PretrainConfig()
    study: StudyConfig = StudyConfig()
    cache: CacheConfig = CacheConfig()
    tracking: TrackingConfig = TrackingConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.movies) + (self.collection is not None) + (self.simulate is not None) != 1:
            raise ValueError("give one of 'movies', 'collection' and 'simulate'")
        if len({_channels(movie) for movie in self.movies}) > 1:
            raise ValueError("movies: some have more channels than others; name as many in each")
        least, most = self.ray.workers
        if most < least:
            raise ValueError("ray.train_workers: the most are fewer than the least")
        if self.pretrain.weights is not None and self.pretrain.repeats > 1:
            raise ValueError("pretrain.weights is one net: leave pretrain.repeats at 1")
        if self.study.batch < self.crops.classes:
            raise ValueError("study.batch must hold a crop of each of crops.classes")
        if self.pretrain.batch < 2 * most * self.pretrain.accumulate:
            raise ValueError("pretrain.batch must give each of ray.train_workers two crop pairs at a time")
        return self

    @property
    def channels(self) -> int:
        """Of a frame that the nets see."""
        return max((_channels(movie) for movie in self.movies), default=1)

    @property
    def deltas(self) -> tuple[int, ...]:
        """Frames from one frame of a pretraining crop to the next, each once."""
        return tuple(dict.fromkeys(self.pretrain.deltas or (self.crops.delta,)))

    @property
    def span(self) -> int:
        """Frames from the first to the last of the longest pretraining crop."""
        return max(self.deltas) * (self.pretrain.frames - 1)
