"""What a search trial and a final run say of a fitted arm."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tapray.crops.budgets import count_events
from tapray.study.calibration import Calibration, fit_calibration
from tapray.study.cells import Fitted, Member, Work
from tapray.study.metrics import best_f1_threshold, probability_scores, score


def search_scores(work: Work, member: Member, fitted: Fitted) -> dict[str, float]:
    """Average precision, NLL and ECE on validation, where calibration was fitted too; test is not seen."""
    logits, labels = fitted.logits["val"], fitted.labels["val"]
    probabilities = fit_calibration(logits, labels, member.settings.temperature).apply(logits)
    found = probability_scores(probabilities, labels, 0.5)
    ranked = score(probabilities, labels, work.config.crops.classes)
    return {"val_ap": ranked["ap"], "val_nll": found["nll"], "val_ece": found["ece"]}


def final_record(work: Work, member: Member, fitted: Fitted) -> dict[str, Any]:
    """One row of results.csv, and the calibration: fitted on validation, scored once on test.

    Decisions (f1, precision, recall) use the threshold of best F1 on validation.
    """
    classes, seed = work.config.crops.classes, member.seed
    val, test, labels = fitted.logits["val"], fitted.logits["test"], fitted.labels["test"]
    calibration = fit_calibration(val, fitted.labels["val"], member.settings.temperature)
    threshold = best_f1_threshold(calibration.apply(val), fitted.labels["val"])
    prevalence_val = float((fitted.labels["val"] > 0).mean())
    before = probability_scores(Calibration.identity(classes).apply(test), labels, prevalence_val)
    after = probability_scores(calibration.apply(test), labels, prevalence_val)
    return {
        "budget_unit": work.config.study.budget_unit,
        "seed": seed,
        "split": work.config.split.kind.value,
        "n_train": len(fitted.train),
        "n_test": len(fitted.test),
        "n_events_train": count_events(fitted.train),
        "n_events_test": count_events(fitted.test),
        "prevalence": float((labels > 0).mean()),
        **score(calibration.apply(test), labels, classes, threshold),
        "val_ap": score(calibration.apply(val), fitted.labels["val"], classes)["ap"],
        **asdict(calibration),
        "threshold": threshold,
        "ece_constant": after["ece_constant"],
        **{f"{name}_before": before[name] for name in ("ece", "nll", "brier")},
        **{f"{name}_after": after[name] for name in ("ece", "nll", "brier")},
    }
