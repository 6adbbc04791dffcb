"""A run trains what its cell says, on what its seed draws, and sees the splits it asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tapray.config import HeadKind, Init, JobConfig, Layer
from tapray.configfile import parse_config
from tapray.model.encoders import build_encoder
from tapray.model.heads import ScaledHead
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import save_tap
from tapray.study.cells import Cell, seeds_together, together
from tapray.study.halving import run_halving, rungs
from tapray.study.scoring import final_record, search_scores
from tapray.study.space import Settings
from tapray.study.store import FeatureStore, features_name
from tapray.study.works import SEARCH_SEED, Fitted, Member, Work, run_work
from tests.study.sources import write_store

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
    arrays = {"pixels": pixels}
    for init in (Init.TAP, Init.RANDOM_DEFAULT):
        encoder = build_encoder(init, 0, PRESET, 1, folder / "model").eval()
        with torch.no_grad():
            features = encoder.features(torch.from_numpy(pixels).float())
        arrays[features_name(init, 0, Layer.PROJECTION)] = features.half().numpy()
    number = np.arange(N)
    index = {
        "crop_id": number,
        "movie": "m",
        "field": "m",
        "label": (number % 3 == 0).astype(int),
        "event_id": np.where(number % 3 == 0, number // 2, -1),
        "split": np.array(["train", "val", "test"])[number * 3 // N],
        "group": number,
        "t": number,
    }
    return write_store(folder / "features", pd.DataFrame(index), arrays)


def work_of(
    config: JobConfig,
    folder: Path,
    init: Init,
    head: HeadKind = HeadKind.POOLED,
    seeds: tuple[int, ...] = (0,),
) -> Work:
    settings = Settings(weight_decay=1e-4, learning_rate=1e-3, dropout=0.0)
    members = tuple(Member(settings, seed) for seed in seeds)
    return Work(config, folder, folder.parent / "model", Cell(init, head, 2), members)


def fitted_of(work: Work, *splits: str) -> Fitted:
    (fitted,) = run_work(work, splits)
    return fitted


@pytest.mark.parametrize("head", [HeadKind.LINEAR, HeadKind.RESNET])
def test_heads_see_frozen_features_in_units_of_the_training_crops(
    config: JobConfig, folder: Path, head: HeadKind
) -> None:
    fitted = fitted_of(work_of(config, folder, Init.RANDOM_DEFAULT, head), "val")
    seen = FeatureStore(folder).features(Init.RANDOM_DEFAULT, 0, Layer.PROJECTION)[slice(0, N // 3)].float()
    spread, mean = torch.std_mean(seen, dim=(0, 1, 3, 4))
    assert isinstance(fitted.head, ScaledHead)
    torch.testing.assert_close(fitted.head.mean, mean)
    torch.testing.assert_close(fitted.head.scale, 1 / spread)
    trained = fitted_of(work_of(config, folder, Init.END_TO_END, head), "val").head
    assert isinstance(trained, ScaledHead)
    assert trained.scale.tolist() == [1.0] * len(spread)  # what it sees changes as it is trained


@pytest.mark.parametrize("init", [Init.END_TO_END, Init.FINE_TUNE])
def test_batch_norm_statistics_move_with_the_training_steps_alone(
    config: JobConfig, folder: Path, init: Init
) -> None:
    fitted = fitted_of(work_of(config, folder, init), "val")
    assert fitted.encoder is not None
    before = build_encoder(init, 0, PRESET, 1, folder.parent / "model").state_dict()
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
    first, again = (fitted_of(work_of(config, folder, init, head), "val", "test") for _ in range(2))
    other = fitted_of(work_of(config, folder, init, head, (3,)), "val", "test")
    for split in ("val", "test"):
        assert first.logits[split].shape == (N // 3, 2)
        assert np.array_equal(first.logits[split], again.logits[split])
        assert not np.array_equal(first.logits[split], other.logits[split])
    assert (first.encoder is None) == init.frozen


def test_a_run_trains_on_the_budget_and_a_search_sees_no_test_crop(config: JobConfig, folder: Path) -> None:
    work = work_of(config, folder, Init.TAP)
    fitted = fitted_of(work, "val")
    assert set(fitted.logits) == {"val"}
    assert fitted.labels["val"].tolist() == [int(n % 3 == 0) for n in range(N // 3, 2 * N // 3)]
    assert set(fitted.train.split) == {"train"}
    assert (fitted.train.label > 0).sum() >= 2
    assert (fitted.train.label == 0).sum() == 2 * 3
    scores = search_scores(work, work.members[0], fitted)
    assert set(scores) == {"val_ap", "val_nll", "val_ece"}
    assert 0 < scores["val_ap"] <= 1


def test_the_record_counts_what_was_trained_and_tested(config: JobConfig, folder: Path) -> None:
    work = work_of(config, folder, Init.TAP)
    record = final_record(work, work.members[0], fitted_of(work, "val", "test"))
    assert record["seed"] == 0
    assert record["n_events_train"] == 2
    assert record["n_test"] == N // 3
    assert record["prevalence"] == pytest.approx(6 / 20)
    assert record["temperature"] > 0
    assert 0 <= record["threshold"] <= 1
    given = Member(replace(work.members[0].settings, temperature=2.0), 0)
    explored = final_record(work, given, fitted_of(work, "val", "test"))
    assert explored["temperature"] == pytest.approx(2.0)
    assert explored["ap"] == record["ap"]


@pytest.mark.parametrize("init", [Init.TAP, Init.END_TO_END])
@pytest.mark.parametrize("head", HeadKind)
def test_what_is_run_together_is_what_is_run_alone(
    config: JobConfig, folder: Path, init: Init, head: HeadKind
) -> None:
    """But for the last digits."""
    several = run_work(work_of(config, folder, init, head, (4, 0, 7)), ("val", "test"))
    for seed, fitted in zip((4, 0, 7), several, strict=True):
        alone = fitted_of(work_of(config, folder, init, head, (seed,)), "val", "test")
        pd.testing.assert_frame_equal(fitted.train, alone.train)
        for split in ("val", "test"):
            np.testing.assert_allclose(fitted.logits[split], alone.logits[split], atol=1e-4)


def test_seeds_with_the_same_encoder_are_run_together(config: JobConfig) -> None:
    study = config.study.model_copy(update={"seeds": 7, "random_draws": 2, "together": 3})
    config = config.model_copy(update={"study": study})
    works = {
        init: [*seeds_together(config, Cell(init, HeadKind.LINEAR, 2))]
        for init in (Init.TAP, Init.RANDOM_PAPER)
    }
    assert works[Init.TAP] == [[0, 1, 2], [3, 4, 5], [6]]
    assert works[Init.RANDOM_PAPER] == [[0, 2, 4], [6], [1, 3, 5]]
    assert [*seeds_together(config, Cell(Init.FINE_TUNE, HeadKind.LINEAR, 2))] == [[n] for n in range(7)]
    assert together(config, Cell(Init.TAP, HeadKind.LINEAR, 2)) == 3
    assert together(config, Cell(Init.TAP, HeadKind.RESNET, 2)) == 1


def test_epochs_take_the_place_of_steps(config: JobConfig, folder: Path) -> None:
    study = config.study.model_copy(update={"epochs": 3})
    work = replace(work_of(config, folder, Init.TAP), config=config.model_copy(update={"study": study}))
    (found,) = run_work(replace(work, members=(Member(Settings(), SEARCH_SEED),)), ("val",))
    assert work.steps == math.ceil(3 * len(found.train) / study.batch)
    alone = replace(work, members=work.members[:1])
    assert alone.steps == work.steps  # whatever a seed is trained with
    assert work_of(config, folder, Init.TAP).steps == STEPS


def test_of_arms_that_train_long_only_the_best_go_on(config: JobConfig, folder: Path) -> None:
    study = config.study.model_copy(update={"steps_trained": 9})
    config = config.model_copy(update={"study": study})
    settings = [Settings(weight_decay=0, learning_rate=10.0**-n) for n in range(2, 6)]
    work = work_of(config, folder, Init.END_TO_END)
    work = replace(work, members=tuple(Member(own, 0) for own in settings))
    found = run_halving(work, 2)
    assert [*rungs(9, 2)] == [2, 4, 9]
    assert sorted(len(record["rungs"]) for record in found) == [1, 1, 2, 3]
    assert sorted(record["status"] for record in found) == ["done", "pruned", "pruned", "pruned"]
    first = [record["rungs"][2] for record in found]
    going_on = [record["rungs"][2] for record in found if len(record["rungs"]) > 1]
    assert min(going_on) >= sorted(first)[-2]
    again = run_halving(work, 2)
    assert again == found


def test_a_training_that_runs_away_is_told(config: JobConfig, folder: Path) -> None:
    settings = Settings(learning_rate=1e30)
    work = replace(work_of(config, folder, Init.TAP, HeadKind.MLP), members=(Member(settings, 0),))
    assert not fitted_of(work, "val").finite
    usual = work_of(config, folder, Init.TAP, HeadKind.MLP)
    both = run_work(replace(usual, members=(*work.members, *usual.members)), ("val",))
    assert [fitted.finite for fitted in both] == [False, True]
