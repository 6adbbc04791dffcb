"""How much does it save to embed each crop once? Beside the reference pipeline, which embeds in every epoch.

    tapray shard studies/hela.yaml --out runs/hela
    python -m benchmarks.embed_once studies/hela.yaml runs/hela

The work list: crops of 48 px of a movie, linear and resnet heads, 3 label budgets x 10 seeds x 30 epochs, one
published U-Net. `once` does it all: starts Ray, embeds every crop, trains every head on what is kept, and
scores validation and test when a run ends. `reference` is one epoch of its way, measured for each head at the
largest budget (median of the repeats) and extrapolated by the number of crop visits: each training batch goes
through the frozen net before the head takes its step; after every epoch it looks at the validation crops, and
at the end at the test crops. Both have the same number of CPUs: threads of the one, Ray's of the other.

- `ratio_same_work`: of all visits, where ours looks at validation after every epoch too, from what is kept;
  measured for heads that are trained as one (linear: of the others it takes hours).
- `ratio_of_training`: the reference's training visits alone, beside all that ours does.
- `ratio_as_each_is`: all its visits, beside ours, which counts as saved that ours looks at validation once.

No way of keeping features can reach more than the ceilings, visits by crops, where the head costs nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from benchmarks.common import emit
from tapray.config import HeadKind, Init, JobConfig
from tapray.configfile import load_config
from tapray.console import Reporter
from tapray.crops.budgets import draw_budget
from tapray.crops.shards import ShardReader
from tapray.distributed import tune
from tapray.distributed.cluster import session
from tapray.distributed.features import Sources, write_features
from tapray.model.encoders import build_encoder
from tapray.model.heads import HEADS, Head, build_head
from tapray.model.tap import FEATURES, TapNet, freeze, initialise
from tapray.model.weights import save_tap
from tapray.study import works
from tapray.study.cache import FeatureCache
from tapray.study.cells import Cell, cells
from tapray.study.fit import Training, logits_of
from tapray.study.runner import Places
from tapray.study.space import usual
from tapray.study.works import Arms, Work, prepare

EPOCHS, SEEDS = 30, 10
PRESET = "unet-32"


def configured(study: Path, run: Path, heads: Sequence[HeadKind], cpus: int) -> JobConfig:
    config = load_config(study, run)
    given = {"inits": (Init.TAP,), "heads": tuple(heads), "seeds": SEEDS, "epochs": EPOCHS}
    return config.model_copy(
        update={
            "study": config.study.model_copy(update=given),
            "pretrain": config.pretrain.model_copy(update={"preset": PRESET, "repeats": 1}),
            "ray": config.ray.model_copy(update={"num_cpus": cpus, "concurrent_trials": cpus}),
        }
    )


def trained(work: Work, group: Sequence[int]) -> Arms:
    """Arms whose training is over, and which looked at validation after every epoch but the last."""
    arms = prepare(work, group)
    assert arms.training is not None
    for _ in range(EPOCHS - 1):
        arms.training.advance(arms.training.steps // EPOCHS)
        arms.fitted(("val",))
    arms.training.advance(arms.training.steps)  # what is left of them
    return replace(arms, training=None)


def looking(config: dict[str, Any], job: str, places: Places) -> None:
    """A worker's work, with looks at validation."""
    with patch.object(works, "prepare", trained):
        tune._work(config, job, places)


def head_s(config: JobConfig, head: HeadKind, folder: Path, records: Path) -> float:
    """Seconds to train a head on every budget and seed."""
    own = config.model_copy(update={"study": config.study.model_copy(update={"heads": (head,)})})
    chosen: dict[Cell, dict[str, Any]] = {cell: {} for cell in cells(own)}
    start = time.perf_counter()
    tune.final_runs(own, folder / "features", folder / "model", chosen, records, lambda _: None)
    return time.perf_counter() - start


def once(config: JobConfig, run: Path, folder: Path) -> dict[str, float]:
    """Seconds to start Ray, to embed, and to train each head, without and with looks at validation."""
    sources = Sources(config, run.resolve() / "shard", {}, folder / "model")
    figures: dict[str, float] = {}
    start = time.perf_counter()
    with session(config.ray):
        figures["ray_start_s"] = time.perf_counter() - start
        start = time.perf_counter()
        write_features(sources, folder / "features", FeatureCache(folder / "cache", 1e11), Reporter("quiet"))
        figures["embed_s"] = time.perf_counter() - start
        for head in config.study.heads:
            figures[f"{head}_s"] = head_s(config, head, folder, folder / head)
            if HEADS[head].stacks:
                with patch.object(tune, "_work", looking):
                    figures[f"{head}_looking_s"] = head_s(config, head, folder, folder / f"{head}-looking")
    return figures


class Embedding(torch.nn.Module):
    """A head behind a frozen net."""

    def __init__(self, net: TapNet, head: Head) -> None:
        super().__init__()
        self.head, self.net = head, [net]  # in a list: its weights are not to be trained

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self.net[0].features(pairs)
        logits: torch.Tensor = self.head(self.head.front(features))
        return logits


def reference(config: JobConfig, run: Path, folder: Path, repeats: int) -> dict[HeadKind, list[float]]:
    """Seconds a crop visit takes, by head, in training and in scoring, where each batch is embedded anew."""
    reader, study = ShardReader(run / "shard"), config.study
    index = reader.index()
    rows = draw_budget(index, max(study.budgets), study.negatives_per_event, 0, study.budget_unit)
    parts = [reader.read_part(path, config.crops.intensity)[1] for path in reader.parts()]
    pairs = torch.from_numpy(np.concatenate(parts)[rows])
    labels = torch.from_numpy(index.label.to_numpy()[rows].astype(np.int64))
    net = build_encoder(Init.TAP, 0, PRESET, config.channels, folder / "model")
    freeze(net)
    taken: dict[HeadKind, list[float]] = {}
    for head in study.heads:
        rounds = [epoch(config, net, head, pairs, labels, number) for number in range(repeats)]
        taken[head] = [statistics.median(each) for each in zip(*rounds, strict=True)]
    return taken


def epoch(
    config: JobConfig, net: TapNet, kind: HeadKind, pairs: torch.Tensor, labels: torch.Tensor, seed: int
) -> tuple[float, float]:
    """Seconds a crop visit takes in training and in scoring, over one epoch of these crops."""
    batch, generator = config.study.batch, torch.Generator().manual_seed(seed)
    steps, every = -(-len(pairs) // batch), torch.arange(len(pairs))
    side = net.features(torch.zeros(1, *pairs.shape[1:])).shape[-1]
    arm = Embedding(net, build_head(kind, FEATURES, side, config.crops.classes, generator))
    training = Training([arm], pairs, labels, [every], [usual(Init.TAP, kind)], steps, batch, [generator])
    start = time.perf_counter()
    training.advance(steps)
    between = time.perf_counter()
    logits_of([arm], pairs, every.numpy())
    return (between - start) / (steps * batch), (time.perf_counter() - between) / len(pairs)


def work_list(config: JobConfig, index: pd.DataFrame) -> dict[str, Any]:
    """Crops by what they are for, how often the reference visits one, and what that lets anyone save."""
    study = config.study
    sizes = {
        budget: [
            len(draw_budget(index, budget, study.negatives_per_event, seed, study.budget_unit))
            for seed in range(SEEDS)
        ]
        for budget in study.budgets
    }
    held_out = {split: int((index.split == split).sum()) for split in ("val", "test")}
    training = EPOCHS * sum(map(sum, sizes.values()))
    scoring = SEEDS * len(sizes) * (EPOCHS * held_out["val"] + held_out["test"])
    return {
        "crops": {"all": len(index), **held_out, "by_budget": {key: own[0] for key, own in sizes.items()}},
        "visits": {"training": training, "scoring": scoring},
        "ceiling_of_training": training / len(index),
        "ceiling": (training + scoring) / len(index),
    }


def compared(
    visits: dict[str, int], each: list[float], ours: dict[str, float], head: HeadKind
) -> dict[str, Any]:
    """A head's row; each: seconds of a visit of the reference in training and in scoring."""
    training, scoring = visits["training"] * each[0], visits["scoring"] * each[1]
    before = ours["ray_start_s"] + ours["embed_s"]
    own = before + ours[f"{head}_s"]
    row: dict[str, Any] = {
        "reference_ms_per_visit": {"training": 1000 * each[0], "scoring": 1000 * each[1]},
        "reference_s_extrapolated": {"training": training, "scoring": scoring},
        "once_s": own,
        "ratio_of_training": training / own,
        "ratio_as_each_is": (training + scoring) / own,
    }
    if HEADS[head].stacks:
        looked = before + ours[f"{head}_looking_s"]
        row |= {"once_looking_s": looked, "ratio_same_work": (training + scoring) / looked}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("run", type=Path, help="a run folder whose shard stage is done")
    parser.add_argument("--heads", type=HeadKind, nargs="+", default=[HeadKind.LINEAR, HeadKind.RESNET])
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    config = configured(given.study, given.run, given.heads, given.cpus)
    torch.set_num_threads(given.cpus)
    figures = work_list(config, ShardReader(given.run / "shard").index())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        net = TapNet(PRESET, config.channels)
        initialise(net, torch.Generator().manual_seed(0))  # for time the weights do not matter
        save_tap(net, folder / "model")
        visit = reference(config, given.run, folder, given.repeats)
        ours = once(config, given.run, folder)
    rows = {str(head): compared(figures["visits"], visit[head], ours, head) for head in visit}
    emit("embed_once", {"cpus": given.cpus, **figures, "once": ours, **rows})


if __name__ == "__main__":
    main()
