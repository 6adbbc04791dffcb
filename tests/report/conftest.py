"""Synthetic studies for the report: plausible, small, and the same every time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from tapray.report import Prediction
from tapray.study.calibration import Calibration, fit_calibration
from tapray.study.metrics import probability_scores, score

SKILL = {
    "imagenet": 1.4,
    "difference": 0.8,
    "tap": 2.6,
    "fine_tune": 2.4,
    "random_default": 1.6,
    "random_paper": 1.3,
    "end_to_end": 1.0,
}


@pytest.fixture(scope="session")
def synthetic() -> Callable[..., dict[str, Any]]:
    """Makes the arguments of `write_report`, see `make_study`."""
    return make_study


def make_study(
    inits: Sequence[str] = ("tap", "random_default", "end_to_end"),
    heads: Sequence[str] = ("pooled", "linear"),
    budgets: Sequence[int] = (5, 10, 20),
    seeds: int = 5,
    n_test: int = 1500,
    arrow: float = 0.73,
    split: str = "movie",
) -> dict[str, Any]:
    """Runs of an overconfident head at 4 % positives, better with more labels and with pretraining."""
    rng = np.random.default_rng(0)
    val, test = ((rng.random(n_test) < 0.04).astype(np.int64) for _ in range(2))
    rows, trials, predictions = [], [], {}
    for init, head, budget in itertools.product(inits, heads, budgets):
        skill = SKILL[init] - 0.3 * heads.index(head) + 0.4 * np.log2(budget / budgets[0])
        cell = {"init": init, "head": head, "budget": budget}
        trials.append(
            cell
            | {
                "trial": 0,
                "lr": 1e-3,
                "val_ap": expit(skill),
                "val_ece": 0.1 - 0.02 * expit(skill),
                "status": "done",
            }
        )
        for seed in range(seeds):
            own = skill + rng.normal(0, 0.15)
            val_logits = outputs(val, own, rng)
            fitted = fit_calibration(val_logits, val)
            logits = outputs(test, own, rng)
            predictions[init, head, budget, seed] = Prediction(
                labels=test,
                logits=logits,
                val_labels=val,
                val_logits=val_logits,
                threshold=0.5,
                temperature=fitted.temperature,
                bias=fitted.bias,
                groups=np.arange(n_test) // 6,
                blocks=np.arange(n_test) // 60,
                encoder=seed if init == "end_to_end" else 0,
            )
            facts = {"budget_unit": "events", "seed": seed, "split": split, "leaky": split == "random_crop"}
            facts["encoder"] = predictions[init, head, budget, seed]["encoder"]
            facts |= {
                "n_train": budget * 18,
                "n_events_train": budget,
                "arrow_accuracy": arrow,
                "val_ap": expit(own),
            }
            rows.append(cell | facts | scored(logits, test, fitted, float(val.mean())))
    return {
        "results": pd.DataFrame(rows),
        "trials": pd.DataFrame(trials),
        "predictions": predictions,
        "audit": {"n_test": n_test, "train": 0.0, "val": 0.0, "pretrain": 0.0},
        "history": learning_curve(arrow),
        "events": {"train": 40, "val": 9, "test": 8},
    }


def outputs(labels: NDArray[np.int64], skill: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, 2) logits, twice too sure and fitted for as many events as other crops."""
    event = 2 * (skill * labels - 0.5 * skill + rng.normal(size=len(labels)))
    return np.stack([np.zeros(len(labels)), event], axis=1)


def scored(
    logits: NDArray[np.float64], labels: NDArray[np.int64], fitted: Calibration, prevalence: float
) -> dict[str, Any]:
    """The measured columns of one row of results."""
    before, after = (
        probability_scores(calibration.apply(logits), labels, prevalence)
        for calibration in (Calibration.identity(2), fitted)
    )
    row: dict[str, Any] = {"temperature": fitted.temperature, "bias": fitted.bias, "n_test": len(labels)}
    row |= {"n_events_test": labels.sum() // 2, "prevalence": labels.mean()}
    row |= score(fitted.apply(logits), labels, 2) | {"ece_constant": after["ece_constant"]}
    for name in ("ece", "nll", "brier"):
        row |= {f"{name}_before": before[name], f"{name}_after": after[name]}
    return row


def learning_curve(arrow: float) -> list[dict[str, float]]:
    """Training accuracy every 50 steps, validation accuracy every 100."""
    steps = np.arange(50, 850, 50)
    gain = 1 - np.exp(-steps / 250)
    curve = [{"step": s, "arrow": 0.5 + (arrow - 0.48) * g} for s, g in zip(steps, gain, strict=True)]
    for entry, g in zip(curve[1::2], gain[1::2], strict=True):
        entry["val_arrow"] = 0.5 + (arrow - 0.5) * g
    return curve
