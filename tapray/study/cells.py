"""One run of a study: a cell (init, head, budget), a setting and a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from tapray.config import HeadKind, Init, JobConfig
from tapray.crops.budgets import count_events, draw_budget
from tapray.model.encoders import build_encoder, draws
from tapray.model.heads import Head, PooledHead, build_head
from tapray.model.tap import FEATURES, TapNet
from tapray.study.calibration import Calibration, fit_calibration
from tapray.study.fit import Arm, Settings, fit, in_batches, solve
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


@dataclass(frozen=True)
class Run:
    """A cell with a setting and a seed, and where its inputs lie."""

    config: JobConfig
    store: Path  # feature folder
    model: Path  # folder of the pretrained net
    cell: Cell
    settings: Settings
    seed: int

    def head(self, side: int, generator: torch.Generator) -> Head:
        """The cell's untrained head for feature maps of side x side."""
        classes, dropout = self.config.crops.classes, self.settings.dropout
        return build_head(self.cell.head, FEATURES, side, classes, dropout, generator)


def run_cell(run: Run, splits: tuple[str, ...]) -> Fitted:
    """Draws the label budget, trains, and applies to `splits`.

    Search trials ask for ("val",) alone, so that they cannot see the test crops.
    """
    index = _index(run.store)
    study = run.config.study
    rows = draw_budget(index, run.cell.budget, study.negatives_per_event, run.seed, study.budget_unit)
    generator = torch.Generator().manual_seed(run.seed * 7919 + 11)
    where = {split: index.loc[index.split == split, "crop_id"].to_numpy(copy=True) for split in splits}
    labels = torch.from_numpy(index.label.to_numpy().astype(np.int64))
    train = _frozen if run.cell.init.frozen else _trained
    encoder, head, apply, inputs = train(run, rows, labels[rows], generator)
    return Fitted(
        encoder,
        head,
        {split: in_batches(apply, inputs[own]).double().numpy() for split, own in where.items()},
        {split: labels[own].numpy() for split, own in where.items()},
        index.iloc[rows],
        index[index.split == "test"],
    )


# The encoder if it was trained, the head, and the module that turns inputs (N, ...) into logits.
Trained = tuple[TapNet | None, Head, nn.Module, torch.Tensor]


def _frozen(run: Run, rows: NDArray[np.int64], labels: torch.Tensor, generator: torch.Generator) -> Trained:
    init, study = run.cell.init, run.config.study
    draw = run.seed % draws(init, study.random_draws)
    inputs = fronts(run.store, init, draw, run.cell.head)
    head = run.head(FeatureStore(run.store).features(init, draw).shape[-1], generator)
    if isinstance(head, PooledHead):
        unlabelled = _index(run.store).split == "train"
        head.settle(inputs[torch.from_numpy(unlabelled.to_numpy(copy=True))])
        solve(head, inputs[rows], labels, run.settings.weight_decay)
    else:
        fit(head, inputs[rows], labels, run.settings, study.steps, study.batch, generator)
    return None, head, head, inputs


def _trained(run: Run, rows: NDArray[np.int64], labels: torch.Tensor, generator: torch.Generator) -> Trained:
    study = run.config.study
    preset, channels = run.config.pretrain.preset, run.config.channels
    encoder = build_encoder(run.cell.init, run.seed, preset, channels, run.model).eval()
    inputs = torch.from_numpy(FeatureStore(run.store).pixels())
    with torch.no_grad():  # and in eval mode: asking for the size must not move batch-norm statistics
        side = encoder.features(torch.zeros(1, *inputs.shape[1:])).shape[-1]
    arm = Arm(encoder, run.head(side, generator))
    fit(arm, inputs[rows], labels, run.settings, study.steps_trained, study.batch, generator, augmented=True)
    return encoder, arm.head, arm, inputs


def search_score(run: Run) -> dict[str, float]:
    """What a search trial reports: average precision and NLL on validation."""
    fitted = run_cell(run, ("val",))
    calibration = fit_calibration(fitted.logits["val"], fitted.labels["val"])
    probabilities = calibration.apply(fitted.logits["val"])
    scores = score(probabilities, fitted.labels["val"], run.config.crops.classes)
    nll = probability_scores(probabilities, fitted.labels["val"], 0.5)["nll"]
    return {"val_ap": scores["ap"], "val_nll": nll}


def final_record(run: Run, fitted: Fitted) -> tuple[dict[str, Any], Calibration, float]:
    """One row of results.csv: calibrated on validation, scored once on test.

    Decisions (f1, precision, recall) use the threshold of best F1 on validation.
    """
    cell, classes = run.cell, run.config.crops.classes
    val, test = fitted.logits["val"], fitted.logits["test"]
    calibration = fit_calibration(val, fitted.labels["val"])
    threshold = best_f1_threshold(calibration.apply(val), fitted.labels["val"])
    labels = fitted.labels["test"]
    prevalence_val = float((fitted.labels["val"] > 0).mean())
    before = probability_scores(Calibration.identity(classes).apply(test), labels, prevalence_val)
    after = probability_scores(calibration.apply(test), labels, prevalence_val)
    record = {
        "init": cell.init.value,
        "head": cell.head.value,
        "budget": cell.budget,
        "budget_unit": run.config.study.budget_unit,
        "seed": run.seed,
        "split": run.config.split.kind.value,
        "n_train": len(fitted.train),
        "n_test": len(fitted.test),
        "n_events_train": count_events(fitted.train),
        "n_events_test": count_events(fitted.test),
        "prevalence": float((labels > 0).mean()),
        **score(calibration.apply(test), labels, classes, threshold),
        "temperature": calibration.temperature,
        "val_ap": score(calibration.apply(val), fitted.labels["val"], classes)["ap"],
        "bias": list(calibration.bias),
        "ece_constant": after["ece_constant"],
        **{f"{name}_before": before[name] for name in ("ece", "nll", "brier")},
        **{f"{name}_after": after[name] for name in ("ece", "nll", "brier")},
    }
    return record, calibration, threshold


def as_settings(params: dict[str, Any]) -> Settings:
    """The settings among the values of a trial's or run's record."""
    names = [field.name for field in fields(Settings) if field.name in params]
    return Settings(**{name: float(params[name]) for name in names})
