"""How much does it save to embed each crop once? Beside the reference pipeline, which embeds in every epoch.

    tapray features studies/hela.yaml --out runs/hela
    python -m benchmarks.embed_once studies/hela.yaml runs/hela

The work list: crops of 48 px of a movie, linear and resnet heads, 3 label budgets x 10 seeds x 30 epochs, the
published U-Net. `once` does it all: starts Ray, embeds every crop, then trains every head on what is kept and
scores validation and test. `reference` is one epoch of its way, measured for each head at the largest budget
and extrapolated by the number of crop visits: each training batch goes through the frozen net before the head
takes its step; after every epoch it looks at the validation crops, and at the end at the test crops.
`ratio` counts all visits, `ratio_of_training` those of training alone. No way of keeping features can reach
more than `ceiling`, visits by crops, where the head itself costs nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import emit
from tapray.config import HeadKind, Init, JobConfig
from tapray.configfile import load_config
from tapray.console import Reporter
from tapray.crops.budgets import draw_budget
from tapray.crops.shards import ShardReader
from tapray.distributed.cluster import session
from tapray.distributed.features import Sources, write_features
from tapray.distributed.tune import final_runs
from tapray.model.encoders import build_encoder
from tapray.model.heads import Head, build_head
from tapray.model.tap import TapNet, freeze, initialise
from tapray.model.weights import save_tap
from tapray.study.cache import FeatureCache
from tapray.study.cells import cells
from tapray.study.fit import Training, logits_of
from tapray.study.space import usual

EPOCHS, SEEDS = 30, 10


def configured(study: Path, run: Path) -> JobConfig:
    config = load_config(study, run)
    given = {
        "inits": (Init.TAP,),
        "heads": (HeadKind.LINEAR, HeadKind.RESNET),
        "seeds": SEEDS,
        "epochs": EPOCHS,
    }
    own = config.study.model_copy(update=given)
    net = config.pretrain.model_copy(update={"preset": "unet-32"})
    return config.model_copy(update={"study": own, "pretrain": net})


def once(config: JobConfig, run: Path, folder: Path) -> dict[str, Any]:
    """Seconds to embed all crops and, by head, to train on every budget and seed."""
    cache, target = FeatureCache(folder / "cache", 1e11), folder / "features"
    sources = Sources(config, run / "shard", "benchmark", {}, folder / "model")
    figures: dict[str, Any] = {}
    start = time.perf_counter()
    with session(config.ray):
        figures["ray_start_s"] = time.perf_counter() - start
        start = time.perf_counter()
        write_features(sources, target, cache, Reporter("quiet"))
        figures["embed_s"] = time.perf_counter() - start
        for head in config.study.heads:
            own = config.model_copy(update={"study": config.study.model_copy(update={"heads": (head,)})})
            chosen: dict[Any, dict[str, Any]] = {cell: {} for cell in cells(own)}
            start = time.perf_counter()
            final_runs(own, target, folder / "model", chosen, folder / head, lambda _: None)
            figures[f"{head}_s"] = time.perf_counter() - start
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


def reference(config: JobConfig, run: Path, folder: Path, repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds a crop visit takes, by head, in training and in scoring, where each batch is embedded anew.

    On all cores.
    """
    torch.set_num_threads(2)
    reader, study = ShardReader(run / "shard"), config.study
    index = reader.index()
    rows = draw_budget(index, max(study.budgets), study.negatives_per_event, 0, study.budget_unit)
    pairs = np.concatenate([reader.read_part(path, config.crops.intensity)[1] for path in reader.parts()])[
        rows
    ]
    labels = torch.from_numpy(index.label.to_numpy()[rows].astype(np.int64))
    net = build_encoder(Init.TAP, 0, "unet-32", config.channels, folder / "model")
    freeze(net)
    taken = dict[str, tuple[float, float]]()
    for kind in study.heads:
        steps = -(-len(rows) // study.batch)
        each, scored = [], []
        for number in range(repeats):
            generator = torch.Generator().manual_seed(number)
            side = net.features(torch.zeros(1, 2, *pairs.shape[2:])).shape[-1]
            head = build_head(kind, 32, side, config.crops.classes, generator)
            every = torch.arange(len(rows))
            given = (labels, [every], [usual(Init.TAP, kind)], steps, study.batch, [generator])
            arm = Embedding(net, head)
            training = Training([arm], torch.from_numpy(pairs), *given)
            start = time.perf_counter()
            training.advance(steps)
            each.append((time.perf_counter() - start) / (steps * study.batch))
            start = time.perf_counter()
            logits_of([arm], torch.from_numpy(pairs), np.arange(len(rows)))
            scored.append((time.perf_counter() - start) / len(rows))
        taken[str(kind)] = statistics.median(each), statistics.median(scored)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("run", type=Path, help="a run folder whose shard stage is done")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    config = configured(given.study, given.run)
    index = ShardReader(given.run / "shard").index()
    study = config.study
    sizes = [
        len(draw_budget(index, budget, study.negatives_per_event, seed, study.budget_unit))
        for budget in study.budgets
        for seed in range(SEEDS)
    ]
    trained = EPOCHS * sum(sizes)
    held_out = {split: int((index.split == split).sum()) for split in ("val", "test")}
    scored = len(sizes) * (EPOCHS * held_out["val"] + held_out["test"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        net = TapNet("unet-32", config.channels)
        initialise(net, torch.Generator().manual_seed(0))  # for time the weights do not matter
        save_tap(net, folder / "model")
        visit = reference(config, given.run, folder, given.repeats)
        ours = once(config, given.run, folder)
    facts = {"crops": len(index), **held_out, "budgets": study.budgets, "training_crops": sizes[::SEEDS]}
    visits = {"trained": trained, "scored": scored, "ceiling": (trained + scored) / len(index)}
    figures: dict[str, Any] = {**facts, "crop_visits": visits, "once": ours}
    for head in map(str, study.heads):
        own = ours["ray_start_s"] + ours["embed_s"] + ours[f"{head}_s"]
        of_training, of_scoring = trained * visit[head][0], scored * visit[head][1]
        figures[head] = {
            "reference_s_extrapolated": of_training + of_scoring,
            "reference_ms_per_visit": [1000 * each for each in visit[head]],
            "once_s": own,
            "ratio": (of_training + of_scoring) / own,
            "ratio_of_training": of_training / own,
        }
    emit("embed_once", figures)


if __name__ == "__main__":
    main()
