"""The stage that shows where the pretrained net reads the order of frames, and measures what that finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tapray.config import Init, Role
from tapray.context import Job
from tapray.crops.collect import Inputs
from tapray.crops.draw import Region
from tapray.distributed.aside import aside
from tapray.insight.detection import bin_edges, detection_table, likeness, shown, tallies, time_parts
from tapray.insight.explain import WAYS, Seen, Stretch, along, grey, stretches, strongest_regions, window
from tapray.insight.maps import FEWEST, as_colours, crop_map, crop_means, shown_crops
from tapray.insights import log, surroundings
from tapray.model.attribution import integrated_gradients, occlusion
from tapray.model.encoders import build_encoder
from tapray.model.tap import TapNet
from tapray.model.weights import load_tap
from tapray.report.captions import PARTS
from tapray.report.explain import Insets, enlarged, overlay_figure, write_movies
from tapray.report.maps import colours_figure, crop_map_figure
from tapray.report.tables import write_csv
from tapray.study.store import FeatureStore, layers

COLUMNS = ["part", "net", "way", "metric", "value", "low", "high"]
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]
ALIKE = "rank_correlation_with_random"


def explain(job: Job) -> dict[str, Any]:
    """Attribution of the pretrained net and of an untrained one on frames that pretraining saw and on test
    frames; its features.
    """
    config, target = job.config, job.folder.stage("explain")
    untrained = build_encoder(Init.RANDOM_DEFAULT, 0, config.pretrain.preset, config.channels, job.model)
    nets = {"tap": load_tap(job.model), "random_default": untrained}
    draw_crop_map = _crop_map(job)
    looks = _looks(job.inputs)
    rows, paths = [], list[Path]()
    total = sum(own.pairs + own.delta for look in looks.values() for own in look.stretches)
    with job.reporter.task("attribution", total, "frame") as progress:
        for role, look in looks.items():
            seen = look.along(nets, progress.advance)
            rows += [table.assign(part=role.value) for table in look.numbers(seen)]
            paths += look.pictures(nets["tap"], seen[0], target, role)
            if role is list(looks)[-1]:
                paths += look.films(nets["tap"], seen[0], target)
    numbers = pd.concat(rows).reindex(columns=COLUMNS)
    paths.append(write_csv(numbers, target / "attribution.csv"))
    paths += draw_crop_map(target)
    _tell(job, numbers)
    return log(job, "explain", paths)


@dataclass(frozen=True)
class Look:
    """The stretches of a part of the data, and what a net sees there."""

    inputs: Inputs
    stretches: list[Stretch]

    @classmethod
    def at(cls, inputs: Inputs, role: Role) -> Look:
        """Where most events of a split are."""
        places = {name: own.table for name, own in inputs.places.items()}
        return cls(inputs, stretches(inputs.regions_of(role), places, inputs.config.crops.delta))

    @property
    def frames(self) -> list[tuple[Region, int, int]]:
        """The region, the first pair and the number of pairs of each stretch."""
        return [(own.region, own.first, own.pairs) for own in self.stretches]

    @property
    def _intensity(self) -> str:
        return self.inputs.config.crops.intensity

    def along(self, nets: Mapping[str, TapNet], tell: Callable[[], object]) -> list[Seen]:
        """What nets see of every stretch."""
        movies = self.inputs.movies
        return [along(nets, movies[own.region.movie], own, self._intensity, tell) for own in self.stretches]

    def numbers(self, seen: Sequence[Seen]) -> Iterator[pd.DataFrame]:
        """How well each way of attribution finds events; see `tapray.insight.detection`."""
        blocks = time_parts([own.pairs for own in self.stretches])
        masks = [_masks(*both) for both in zip(self.stretches, seen, strict=True)]
        for way in WAYS:
            maps = {net: [own.maps[net][way] for own in seen] for net in seen[0].maps}
            sums = {net: _tallied(own, masks) for net, own in maps.items()}
            table = detection_table(sums, blocks, np.random.default_rng(0))
            each = [likeness(*both) for both in zip(*maps.values(), strict=True)]
            alike = float(pd.Series(each).mean())  # over what is known, if anything is
            same = pd.DataFrame({"net": ["tap"], "metric": [ALIKE], "value": [alike]})
            yield pd.concat([table, same]).assign(way=way)

    def pictures(self, net: TapNet, seen: Seen, folder: Path, role: Role) -> list[Path]:
        """The pair that shows most events: its regions by each way, as picture and table, and its features as
        colours.
        """
        stretch, own, stride = self.stretches[0], seen.maps["tap"], net.backbone.stride
        t, frames = stretch.first + seen.number, seen.frames
        size, part = self.inputs.config.crops.size, PARTS[role.value]
        maps = {way: enlarged(own[way][seen.number][None], stretch.shape, stride)[0] for way in WAYS}
        events = shown(stretch.events, t, stretch.delta)
        r, where, paths = stretch.region, f"{stretch.region.movie}, t = {t}", list[Path]()
        for way in WAYS:
            regions = strongest_regions(own[way][seen.number], size, stride)
            insets = Insets.around(regions, size, grey(frames), maps, _others(net, frames, regions, size))
            title = f"{part}, {where}: where {way} stands out (boxes), annotated events (circles)"
            path = folder / f"{way}_{role.value}.png"
            paths.append(overlay_figure(grey(frames), maps[way], regions, insets, events, title, path))
            table = regions.assign(movie=r.movie, t=t, y=regions["y"] + r.top, x=regions["x"] + r.left)
            paths.append(write_csv(table, path.with_suffix(".csv")))
        beside = folder / f"features_{role.value}.png"
        colours_figure(grey(frames)[0], as_colours(seen.features), f"{part}, {where}", beside)
        return [*paths, beside]

    def films(self, net: TapNet, seen: Seen, folder: Path) -> list[Path]:
        """The first stretch as a movie."""
        stretch, stride = self.stretches[0], net.backbone.stride
        pixel = self.inputs.movies[stretch.region.movie].pixel_size
        return write_movies(stretch, seen.film, seen.maps["tap"]["evidence"], stride, folder, pixel)


def _looks(inputs: Inputs) -> dict[Role, Look]:
    """At what pretraining saw and at the test part; once where both are the same frames, as in a split that
    shuffles crops: no frame of such a movie is held out.
    """
    looks = {role: Look.at(inputs, role) for role in (Role.TRAIN, Role.TEST)}
    if looks[Role.TRAIN].frames == looks[Role.TEST].frames:
        del looks[Role.TEST]
    return looks


def _masks(stretch: Stretch, seen: Seen) -> Masks:
    """Which places of the maps lie near an event, and which count."""
    stride = -(-stretch.shape[0] // seen.features.shape[1])
    return stretch.inside(stride), stretch.known(stride)


def _tallied(maps: Sequence[NDArray[np.float32]], masks: Sequence[Masks]) -> NDArray[np.float64]:
    """Of the maps and masks (P, h, w) of every stretch."""
    edges = bin_edges(maps)
    return np.concatenate([tallies(own, *both, edges) for own, both in zip(maps, masks, strict=True)])


def _others(
    net: TapNet, frames: NDArray[np.float32], regions: pd.DataFrame, size: int
) -> dict[str, NDArray[np.float32]]:
    """What other ways of attribution say of squares around regions (n, size, size), both frames summed;
    nothing where there are no regions.
    """
    if regions.empty:
        return {}
    crops = [window(frames, int(y), int(x), size) for y, x in regions[["y", "x"]].to_numpy()]
    given = torch.from_numpy(np.stack(crops))
    ways = {"integrated_gradients": integrated_gradients, "occlusion": occlusion}
    return {name: way(net, given).sum(dim=1).numpy() for name, way in ways.items()}


def _crop_map(job: Job) -> Callable[[Path], Sequence[Path]]:
    """UMAP of the test crops' features under the first pretrained net, made in a worker: compiling it takes
    longer than all else. What is returned draws it.
    """
    store = FeatureStore(job.features)
    index = store.index()
    test = index[index["split"] == "test"]
    if len(test) < FEWEST or Init.TAP not in job.config.study.inits:
        return lambda _: []
    test = test.iloc[shown_crops(len(test), job.config.seed)]
    features = store.features(Init.TAP, 0, layers(job.config.study)[0])
    made = aside(crop_map, crop_means(features, test.index.to_numpy(copy=True)), job.config.seed)

    def draw(target: Path) -> Sequence[Path]:
        facts = surroundings(job, test.reset_index(drop=True))
        placed = pd.DataFrame(made(), columns=["a", "b"]).assign(kind=facts["kind"], frames=facts["since"])
        return crop_map_figure(placed, target / "crop_map.png")

    return draw


def _tell(job: Job, numbers: pd.DataFrame) -> None:
    """Numbers of the test part, or of what pretraining saw where that is the same."""
    last = numbers[numbers["part"] == numbers["part"].iloc[-1]].dropna(subset="value")
    names = last["way"] + "_" + last["metric"] + "_" + last["net"]
    found = {str(name): float(value) for name, value in zip(names, last["value"], strict=True)}
    told = [
        f"{found.get(f'evidence_enrichment_{net}', float('nan')):.1f} ({net})"
        for net in ("tap", "random_default")
    ]
    job.reporter.say(f"evidence of the arrow near events, over their share of the ground: {', '.join(told)}")
    job.tracker.metrics(job.run_id, found)
