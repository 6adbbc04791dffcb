"""One run of a study: a cell (init, head, budget), a setting and a seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tapray.config import HeadKind, Init, JobConfig
from tapray.crops.budgets import count_events, draw_budget
from tapray.model.encoders import build_encoder, draws
from tapray.model.heads import Head, build_head
from tapray.model.tap import FEATURES, TapNet
from tapray.study.calibration import Calibration, fit_calibration
from tapray.study.fit import Arm, Settings, fit, in_batches
from tapray.study.metrics import best_f1_threshold, probability_scores, score
from tapray.study.store import FeatureStore, fronts

SEARCH_SEED = 1_000_000  # search trials draw labels that no final run draws


@dataclass(frozen=True)
class Cell:
    """What is crossed, never searched."""

    init: Init
    head: HeadKind
    budget: int

    @property
    def name(self) -> str:
        """For example tap-pooled-10."""
        return f"{self.init.value}-{self.head.value}-{self.budget}"


def cells(config: JobConfig) -> list[Cell]:
    """Every cell of a study: budgets, then initialisations, then heads, as the configuration lists them."""
    study = config.study
    return [
        Cell(init, head, budget) for budget in study.budgets for init in study.inits for head in study.heads
    ]


@dataclass(frozen=True)
class Fitted:
    """A trained arm and its logits (n, K) on validation and test crops."""

    encoder: TapNet | None  # None: frozen, its features were read
    head: Head
    logits: dict[str, NDArray[np.float64]]
    labels: dict[str, NDArray[np.int64]]
    train: pd.DataFrame
    test: pd.DataFrame


@lru_cache(maxsize=2)
def _index(folder: Path) -> pd.DataFrame:
    return FeatureStore(folder).index()


def run_cell(
    config: JobConfig,
    store: Path,
    model: Path,
    cell: Cell,
    settings: Settings,
    seed: int,
    splits: tuple[str, ...],
) -> Fitted:
    """Draws the label budget, trains, and applies to `splits`.

    Search trials ask for ("val",) alone, so that they cannot see the test crops.

    Args:
        store: feature folder; model: folder of the pretrained net.
    """
    index = _index(store)
    rows = draw_budget(index, cell.budget, config.study.negatives_per_event, seed)
    generator = torch.Generator().manual_seed(seed * 7919 + 11)
    where = {split: index.loc[index.split == split, "crop_id"].to_numpy() for split in splits}
    labels = torch.from_numpy(index.label.to_numpy().astype(np.int64))
    runner = _frozen if cell.init.frozen else _trained
    encoder, head, logits = runner(config, store, model, cell, settings, seed, rows, labels, where, generator)
    return Fitted(
        encoder,
        head,
        logits,
        {split: labels[own].numpy() for split, own in where.items()},
        index.iloc[rows],
        index[index.split == "test"],
    )


Parts = tuple[TapNet | None, Head, dict[str, NDArray[np.float64]]]


def _frozen(
    config: JobConfig,
    store: Path,
    model: Path,
    cell: Cell,
    settings: Settings,
    seed: int,
    rows: NDArray[np.int64],
    labels: torch.Tensor,
    where: dict[str, NDArray[np.int64]],
    generator: torch.Generator,
) -> Parts:
    draw = seed % draws(cell.init, config.study.random_draws)
    inputs = fronts(store, cell.init, draw, cell.head)
    side = FeatureStore(store).features(cell.init, draw).shape[-1]
    head = build_head(cell.head, FEATURES, side, config.crops.classes, settings.dropout, generator)
    if cell.head is HeadKind.POOLED:
        unlabelled = _index(store).split == "train"
        head.settle(inputs[torch.from_numpy(unlabelled.to_numpy())])
    fit(head, inputs[rows], labels[rows], settings, config.study.steps, config.study.batch, generator)
    logits = {split: in_batches(head, inputs[own]).double().numpy() for split, own in where.items()}
    return None, head, logits


def _trained(
    config: JobConfig,
    store: Path,
    model: Path,
    cell: Cell,
    settings: Settings,
    seed: int,
    rows: NDArray[np.int64],
    labels: torch.Tensor,
    where: dict[str, NDArray[np.int64]],
    generator: torch.Generator,
) -> Parts:
    encoder = build_encoder(cell.init, seed, config.pretrain.preset, model).eval()
    pixels = FeatureStore(store).pixels()
    with torch.no_grad():  # and in eval mode: asking for the size must not move batch-norm statistics
        side = encoder.backbone(torch.zeros(1, 1, *pixels.shape[2:])).shape[-1]
    head = build_head(cell.head, FEATURES, side, config.crops.classes, settings.dropout, generator)
    arm = Arm(encoder, head)
    chosen = torch.from_numpy(np.asarray(pixels[rows]))
    fit(
        arm,
        chosen,
        labels[rows],
        settings,
        config.study.steps_trained,
        config.study.batch,
        generator,
        augmented=True,
    )
    logits = {split: in_batches(arm, pixels[own]).double().numpy() for split, own in where.items()}
    return encoder, head, logits


def search_score(
    config: JobConfig, store: Path, model: Path, cell: Cell, settings: Settings
) -> dict[str, float]:
    """What a search trial reports: average precision and NLL on validation."""
    fitted = run_cell(config, store, model, cell, settings, SEARCH_SEED, ("val",))
    calibration = fit_calibration(fitted.logits["val"], fitted.labels["val"])
    probabilities = calibration.apply(fitted.logits["val"])
    scores = score(probabilities, fitted.labels["val"], config.crops.classes)
    nll = probability_scores(probabilities, fitted.labels["val"], 0.5)["nll"]
    return {"val_ap": scores["ap"], "val_nll": nll}


def final_record(
    config: JobConfig, cell: Cell, seed: int, fitted: Fitted
) -> tuple[dict[str, Any], Calibration, float]:
    """One row of results.csv: calibrated on validation, scored once on test.

    Decisions (f1, precision, recall) use the threshold of best F1 on validation.
    """
    val, test = fitted.logits["val"], fitted.logits["test"]
    calibration = fit_calibration(val, fitted.labels["val"])
    threshold = best_f1_threshold(calibration.apply(val), fitted.labels["val"])
    labels = fitted.labels["test"]
    prevalence_val = float((fitted.labels["val"] > 0).mean())
    before = probability_scores(
        Calibration.identity(config.crops.classes).apply(test), labels, prevalence_val
    )
    after = probability_scores(calibration.apply(test), labels, prevalence_val)
    record = {
        "init": cell.init.value,
        "head": cell.head.value,
        "budget": cell.budget,
        "budget_unit": "events",
        "seed": seed,
        "split": config.split.kind.value,
        "n_train": len(fitted.train),
        "n_test": len(fitted.test),
        "n_events_train": count_events(fitted.train),
        "n_events_test": count_events(fitted.test),
        "prevalence": float((labels > 0).mean()),
        **score(calibration.apply(test), labels, config.crops.classes, threshold),
        "temperature": calibration.temperature,
        "val_ap": score(calibration.apply(val), fitted.labels["val"], config.crops.classes)["ap"],
        "bias": list(calibration.bias),
        "ece_constant": after["ece_constant"],
        **{f"{name}_before": before[name] for name in ("ece", "nll", "brier")},
        **{f"{name}_after": after[name] for name in ("ece", "nll", "brier")},
    }
    return record, calibration, threshold


def as_settings(params: dict[str, Any]) -> Settings:
    """The settings among the values of a trial's or run's record."""
    return Settings(**{name: float(params[name]) for name in asdict(Settings(0, 0, 0))})
