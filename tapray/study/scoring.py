"""What a search trial and a final run say of a fitted arm."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapray.crops.budgets import count_events
from tapray.model.encoders import draw_of
from tapray.study.calibration import Calibration, fit_calibration
from tapray.study.metrics import average_precision, best_f1_threshold, probability_scores, score
from tapray.study.works import Fitted, Member, Work


def search_scores(work: Work, member: Member, fitted: Fitted) -> dict[str, float]:
    """Average precision, NLL and ECE on validation; test is not seen.

    NLL and ECE are of probabilities that were calibrated on the other half of the validation crops, so that a
    setting is not chosen for how closely its calibration follows the crops it was fitted on.
    """
    logits, labels = fitted.logits["val"], fitted.labels["val"]
    probabilities = np.empty_like(logits)
    for half in _halves(fitted.groups["val"], labels):
        other = fit_calibration(logits[~half], labels[~half], member.settings.temperature)
        probabilities[half] = other.apply(logits[half])
    found = probability_scores(probabilities, labels, 0.5)
    whole = fit_calibration(logits, labels, member.settings.temperature).apply(logits)
    ap = average_precision(whole, labels, work.config.crops.classes)
    return {"val_ap": ap, "val_nll": found["nll"], "val_ece": found["ece"]}


def _halves(groups: NDArray[Any], labels: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """Both halves (n,) of the crops: every other group of each class, so that no event is in both."""
    half = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.unique(groups[labels == label])
        half |= np.isin(groups, own[::2]) & (labels == label)
    return [half, ~half]


def final_record(work: Work, member: Member, fitted: Fitted) -> dict[str, Any]:
    """One row of results.csv, and the calibration: fitted on validation, scored once on test.

    Decisions (f1, precision, recall) use the threshold of best F1 on validation; precision and recall of the
    likeliest class without calibration, as published, stand beside them as NAME_argmax.
    """
    classes, seed = work.config.crops.classes, member.seed
    val, test, labels = fitted.logits["val"], fitted.logits["test"], fitted.labels["test"]
    calibration = fit_calibration(val, fitted.labels["val"], member.settings.temperature)
    threshold = best_f1_threshold(calibration.apply(val), fitted.labels["val"])
    prevalence_val = float((fitted.labels["val"] > 0).mean())
    uncalibrated = Calibration.identity(classes).apply(test)
    before = probability_scores(uncalibrated, labels, prevalence_val)
    likeliest = score(uncalibrated, labels, classes)
    after = probability_scores(calibration.apply(test), labels, prevalence_val)
    return {
        "budget_unit": work.config.study.budget_unit,
        "seed": seed,
        "encoder": draw_of(work.cell.init, work.config, seed),
        "split": work.config.split.kind.value,
        "n_train": len(fitted.train),
        "n_test": len(fitted.test),
        "n_events_train": count_events(fitted.train),
        "n_events_test": count_events(fitted.test),
        "prevalence": float((labels > 0).mean()),
        **score(calibration.apply(test), labels, classes, threshold),
        **{
            f"{name}_argmax": likeliest[name]
            for name in likeliest
            if name.startswith(("precision", "recall"))
        },
        "val_ap": average_precision(calibration.apply(val), fitted.labels["val"], classes),
        **asdict(calibration),
        "threshold": threshold,
        "ece_constant": after["ece_constant"],
        **{f"{name}_before": before[name] for name in ("ece", "nll", "brier")},
        **{f"{name}_after": after[name] for name in ("ece", "nll", "brier")},
    }
