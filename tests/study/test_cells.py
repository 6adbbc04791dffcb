"""A run trains what its cell says, on what its seed draws, and sees the splits it asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tapray.config import HeadKind, Init, JobConfig
from tapray.configfile import parse_config
from tapray.model.encoders import build_encoder
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import save_tap
from tapray.study.cells import Cell, Run, final_record, run_cell, search_score
from tapray.study.fit import Settings
from tapray.study.store import encoder_name

pytestmark = pytest.mark.filterwarnings("error")
PRESET, STEPS = "unet-8s2", 3
N = 60


@pytest.fixture(scope="module")
def config() -> JobConfig:
    return parse_config(
        {
            "simulate": {},
            "crops": {"size": 16},
            "pretrain": {"preset": PRESET, "size": 16},
            "study": {"steps": STEPS, "steps_trained": STEPS, "batch": 8, "negatives_per_event": 3},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature folder of 60 crops, every third an event, and model/ with a pretrained net."""
    folder, rng = tmp_path_factory.mktemp("store"), np.random.default_rng(0)
    net = TapNet(PRESET)
    initialise(net, torch.Generator().manual_seed(0))
    save_tap(net, folder / "model")
    pixels = rng.normal(size=(N, 2, 16, 16)).astype(np.float16)
    np.save(folder / "pixels.npy", pixels)
    for init in (Init.TAP, Init.RANDOM_DEFAULT):
        encoder = build_encoder(init, 0, PRESET, 1, folder / "model").eval()
        with torch.no_grad():
            features = encoder.features(torch.from_numpy(pixels).float())
        np.save(folder / f"{encoder_name(init, 0)}.npy", features.half().numpy())
    number = np.arange(N)
    index = {
        "crop_id": number,
        "movie": "m",
        "label": (number % 3 == 0).astype(int),
        "event_id": np.where(number % 3 == 0, number // 2, -1),
        "split": np.array(["train", "val", "test"])[number * 3 // N],
        "group": number,
    }
    pd.DataFrame(index).to_parquet(folder / "index.parquet")
    return folder


def run_of(
    config: JobConfig, folder: Path, init: Init, head: HeadKind = HeadKind.POOLED, seed: int = 0
) -> Run:
    return Run(config, folder, folder / "model", Cell(init, head, 2), Settings(1e-4, 1e-3, 0.1), seed)


@pytest.mark.parametrize("init", [Init.END_TO_END, Init.FINE_TUNE])
def test_batch_norm_statistics_move_with_the_training_steps_alone(
    config: JobConfig, folder: Path, init: Init
) -> None:
    fitted = run_cell(run_of(config, folder, init), ("val",))
    assert fitted.encoder is not None
    before = build_encoder(init, 0, PRESET, 1, folder / "model").state_dict()
    counted = [name for name in before if name.endswith("num_batches_tracked")]
    assert counted
    # the arrow head takes no part
    moved = {name: int(fitted.encoder.state_dict()[name] - before[name]) for name in counted}
    used = {name: n for name, n in moved.items() if n}
    assert used
    assert set(used.values()) == {STEPS}
    assert any(name.startswith("backbone") for name in used)


@pytest.mark.parametrize("init", [Init.TAP, Init.END_TO_END])
@pytest.mark.parametrize("head", [HeadKind.POOLED, HeadKind.LINEAR])
def test_a_run_follows_from_its_seed(config: JobConfig, folder: Path, init: Init, head: HeadKind) -> None:
    first, again = (run_cell(run_of(config, folder, init, head), ("val", "test")) for _ in range(2))
    other = run_cell(run_of(config, folder, init, head, seed=3), ("val", "test"))
    for split in ("val", "test"):
        assert first.logits[split].shape == (N // 3, 2)
        assert np.array_equal(first.logits[split], again.logits[split])
        assert not np.array_equal(first.logits[split], other.logits[split])
    assert (first.encoder is None) == init.frozen


def test_a_run_trains_on_the_budget_and_a_search_sees_no_test_crop(config: JobConfig, folder: Path) -> None:
    run = run_of(config, folder, Init.TAP)
    fitted = run_cell(run, ("val",))
    assert set(fitted.logits) == {"val"}
    assert fitted.labels["val"].tolist() == [int(n % 3 == 0) for n in range(N // 3, 2 * N // 3)]
    assert set(fitted.train.split) == {"train"}
    assert (fitted.train.label > 0).sum() >= 2
    assert (fitted.train.label == 0).sum() == 2 * 3
    scores = search_score(run)
    assert set(scores) == {"val_ap", "val_nll"}
    assert 0 < scores["val_ap"] <= 1


def test_the_record_counts_what_was_trained_and_tested(config: JobConfig, folder: Path) -> None:
    run = run_of(config, folder, Init.TAP)
    record, calibration, threshold = final_record(run, run_cell(run, ("val", "test")))
    assert (record["init"], record["head"], record["budget"], record["seed"]) == ("tap", "pooled", 2, 0)
    assert record["n_events_train"] == 2
    assert record["n_test"] == N // 3
    assert record["prevalence"] == pytest.approx(6 / 20)
    assert record["temperature"] == calibration.temperature
    assert 0 <= threshold <= 1
