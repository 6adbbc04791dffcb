"""The model folder that a study leaves: encoder, event head and calibration, ready for any movie."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from tapray.atomic import atomic_folder, atomic_write
from tapray.config import CropConfig, HeadKind, Init, JobConfig
from tapray.configfile import one_line
from tapray.errors import UserError
from tapray.model.encoders import build_encoder, draws
from tapray.model.heads import Head, build_head
from tapray.model.tap import FEATURES, TapNet, freeze
from tapray.model.weights import load_tap, save_tap
from tapray.study.calibration import Calibration
from tapray.study.results import Results, best_run, run_name


@dataclass(frozen=True)
class Detector:
    """Encoder, head and calibration, with how crops are cut and normalised."""

    encoder: TapNet
    head: Head
    calibration: Calibration
    threshold: float
    crops: CropConfig
    facts: dict[str, Any]


def save_model(config: JobConfig, found: Results, study: Path, pretrained: Path, folder: Path) -> Path:
    """Writes the model folder of the run that is best on validation, at the largest budget.

    `tapray.study.results.best_run` says which.
    """
    run = best_run(found.results)
    init, head = run["init"], run["head"]
    source = study / run_name(run)
    with atomic_folder(folder) as beside:
        draw = int(run["seed"]) % draws(Init(init), config.study.random_draws)
        if Init(init).frozen:
            preset = config.pretrain.preset
            save_tap(build_encoder(Init(init), draw, preset, config.channels, pretrained), beside / "encoder")
        else:
            shutil.copytree(source, beside / "encoder", ignore=shutil.ignore_patterns("head.*"))
            told = {"preset": config.pretrain.preset, "channels": config.channels}
            (beside / "encoder" / "tap.json").write_text(json.dumps(told))
        shutil.copy(source / "head.safetensors", beside / "head.safetensors")
        facts = {"init": init, "head": head, "budget": int(run["budget"]), "seed": int(run["seed"])}
        scores = {"val_ap": run["val_ap"], "test_ap": run["ap"]}
        body = {**facts, **scores, **run["calibration"], "crops": config.crops.model_dump(mode="json")}
        (beside / "model.json").write_text(json.dumps(body, indent=1))
    return folder


def set_threshold(folder: Path, threshold: float, validation: dict[str, float]) -> None:
    """Puts another threshold into a model folder, with what a search of the validation part names with it."""
    body = json.loads((folder / "model.json").read_text())
    changed = {**body, "threshold": threshold, "validation": validation}
    atomic_write(folder / "model.json", json.dumps(changed, indent=1))


def load_model(folder: Path) -> Detector:
    """Reads a model folder.

    Raises:
        UserError: it is not a model folder, or is damaged.
    """
    try:
        facts = json.loads((folder / "model.json").read_text())
        crops = CropConfig.model_validate(facts["crops"])
        encoder = load_tap(folder / "encoder")
        freeze(encoder)
        side = encoder.backbone(torch.zeros(1, encoder.channels, crops.size, crops.size)).shape[-1]
        head = build_head(HeadKind(facts["head"]), FEATURES, side, crops.classes, 0.0, torch.Generator())
        head.load_state_dict(load_file(folder / "head.safetensors"))
        calibration = Calibration(float(facts["temperature"]), tuple(float(b) for b in facts["bias"]))
        threshold = float(facts["threshold"])
        numbers = [calibration.temperature, *calibration.bias, threshold]
        if not np.isfinite(numbers).all() or calibration.temperature <= 0 or not 0 <= threshold <= 1:
            what = "temperature and bias must be finite, the temperature above 0, the threshold from 0 to 1"
            raise ValueError(what)
        if len(calibration.bias) != crops.classes:
            raise ValueError(f"{len(calibration.bias)} biases for {crops.classes} classes")
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"not a readable model ({_reason(error)})", where=folder) from None
    freeze(head)
    return Detector(encoder, head, calibration, threshold, crops, facts)


def _reason(error: Exception) -> str:
    """One line of what is wrong with a model folder."""
    if isinstance(error, ValidationError):
        return one_line(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error).split()[:20])  # torch and safetensors list every tensor
