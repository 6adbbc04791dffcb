"""The model folder that a study leaves: encoder, event head and calibration, ready for any movie."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tapray.atomic import atomic_folder, atomic_write
from tapray.config import CropConfig, HeadKind, Init, JobConfig, Layer, Pooling
from tapray.configfile import one_line
from tapray.errors import UserError
from tapray.model.encoders import build_encoder, draw_of
from tapray.model.heads import Head, HeadOptions, build_head
from tapray.model.tap import TapNet, freeze
from tapray.model.weights import load_tap, save_tap, under
from tapray.study.calibration import Calibration
from tapray.study.results import Results, best_run
from tapray.study.space import settings_of


@dataclass(frozen=True)
class Detector:
    """Encoder, head and calibration, with how crops are cut and normalised."""

    encoder: TapNet
    layer: Layer  # of the encoder, that the head sees
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
    init, head = Init(run["init"]), HeadKind(run["head"])
    own = {key: value for key, value in run.items() if value == value}
    settings = settings_of(init, head, own, config.study.fixed)
    tensors = load_file(study / f"{run['work']}.safetensors")
    weights = {part: under(f"{run['seed']}.{part}", tensors) for part in ("head", "tap")}
    with atomic_folder(folder) as beside:
        draw = draw_of(init, config, int(run["seed"]))
        encoder = build_encoder(init, draw, config.pretrain.preset, config.channels, pretrained)
        if weights["tap"]:
            encoder.load_state_dict(weights["tap"])
        save_tap(encoder, beside / "encoder", intensity=config.crops.intensity)
        save_file(weights["head"], beside / "head.safetensors")
        facts = {"init": init, "head": head, "budget": int(run["budget"]), "seed": int(run["seed"])}
        shape = {"width": settings.width, "pooling": settings.pooling, "layer": settings.layer}
        scores = {"val_ap": run["val_ap"], "test_ap": run["ap"]}
        fitted = {name: run[name] for name in ("temperature", "bias", "threshold")}
        body = {**facts, **shape, **scores, **fitted, "crops": config.crops.model_dump(mode="json")}
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
        layer, options = Layer(facts["layer"]), HeadOptions(0.0, facts["width"], Pooling(facts["pooling"]))
        blank = torch.zeros(1, 1, encoder.channels, crops.size, crops.size)
        channels, side = encoder.features(blank, layer).shape[2:4]
        kind = HeadKind(facts["head"])
        head = build_head(kind, channels, side, crops.classes, torch.Generator(), options)
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
    return Detector(encoder, layer, head, calibration, threshold, crops, facts)


def _reason(error: Exception) -> str:
    """One line of what is wrong with a model folder."""
    if isinstance(error, ValidationError):
        return one_line(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error).split()[:20])  # torch and safetensors list every tensor
