"""A whole tiny job: what it leaves, and that going on after an interruption changes and doubles nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tapray.console import Reporter
from tapray.errors import UserError
from tapray.job import _forget, _stale, run_job
from tapray.runfolder import RunFolder
from tapray.stores import default_uri
from tests.conftest import files, tiny_config

pytestmark = pytest.mark.slow

COLUMNS = [
    *("init", "head", "budget", "budget_unit", "seed", "encoder", "split"),
    *("n_train", "n_test", "n_events_train", "n_events_test", "prevalence", "arrow_accuracy"),
    *("ap", "f1", "precision_0", "recall_0", "precision_1", "recall_1"),
    *("precision_2", "recall_2", "balanced_accuracy", "mcc", "temperature", "bias"),
    *("ece_before", "ece_after", "ece_constant", "nll_before", "nll_after", "brier_before"),
    *("brier_after",),
]
TRIALS, RUNS = 2 * 3, 2 * 2  # two cells; three trials and two seeds each
INSIGHT = "calibrate errors explain"
STAGES = ("simulate", "shard", "pretrain", "features", "study", *INSIGHT.split(), "report")


def mlflow_runs(out: Path) -> tuple[list[str], Counter[str]]:
    """The status of every parent run, and how often each nested run's (name, status) is there."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(out))
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    parents = [run.info.status for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return parents, Counter(f"{run.info.run_name} {run.info.status}" for run in nested)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_results_have_the_promised_columns(tiny_job: Path) -> None:
    results = pd.read_csv(tiny_job / "report" / "results.csv")
    assert set(COLUMNS) <= set(results.columns)
    assert len(results) == RUNS
    assert not results.duplicated(["init", "head", "budget", "seed"]).any()
    assert (results["n_events_train"] == 2).all()
    assert results["n_test"].nunique() == 1
    assert results["ap"].between(0, 1).all()
    assert results.loc[results["init"] == "tap", "arrow_accuracy"].notna().all()
    assert results.loc[results["init"] == "end_to_end", "arrow_accuracy"].isna().all()
    assert len(pd.read_csv(tiny_job / "report" / "trials.csv")) == TRIALS
    assert len(pd.read_csv(tiny_job / "report" / "summary.csv")) == 2


def test_nothing_leaks(tiny_job: Path) -> None:
    manifest = json.loads((tiny_job / "shard" / "manifest.json").read_text())
    assert manifest["audit"]["n_test"] > 0
    assert [manifest["audit"][name] for name in ("train", "val", "pretrain")] == [0, 0, 0]


def test_nothing_is_left_half_written(tiny_job: Path) -> None:
    names = {path.name for path in tiny_job.rglob("*") if path.name.startswith(".")}
    assert names == {".lock", *(f".begun-{stage}" for stage in STAGES)}
    assert {path.name for path in tiny_job.iterdir() if path.is_dir()} == {*STAGES, "model"}


def test_one_run_holds_all_others(tiny_job: Path) -> None:
    """Though the job was stopped after every stage."""
    parents, nested = mlflow_runs(tiny_job)
    assert parents == ["FINISHED"]
    assert set(nested.values()) == {1}
    assert len(nested) == 1 + TRIALS + RUNS
    assert all(name.endswith(" FINISHED") for name in nested)


def test_a_finished_job_runs_nothing(tiny_job: Path) -> None:
    before, start = state(tiny_job), time.monotonic()
    run_job(tiny_config(tiny_job), reporter=Reporter("quiet"))
    assert time.monotonic() - start < 5
    assert state(tiny_job) == before


def test_another_job_may_not_have_its_folder(tiny_job: Path) -> None:
    before = state(tiny_job)
    with pytest.raises(UserError, match=r"in use by another configuration .*study\.seeds"):
        run_job(tiny_config(tiny_job, study={"seeds": 3}), reporter=Reporter("quiet"))
    with pytest.raises(UserError, match="unknown stage 'train'"):
        run_job(tiny_config(tiny_job), force=["train"], reporter=Reporter("quiet"))
    assert state(tiny_job) == before


@contextmanager
def interrupted_once(ready: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C for this process as soon as `ready`, while the block runs."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            if ready():
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


@dataclass
class Continued:
    """A copy of the tiny job whose study was forced, interrupted and continued."""

    out: Path
    before: dict[str, tuple[int, bytes]]  # the whole folder before that
    halfway: dict[str, tuple[int, bytes]]  # the study when it was interrupted
    runs_halfway: tuple[list[str], Counter[str]]


@pytest.fixture(scope="module")
def continued(tiny_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Continued:
    out = tmp_path_factory.mktemp("continued") / "runs" / "tiny"
    shutil.copytree(tiny_job, out)
    shutil.copytree(tiny_job.parent / "cache", out.parent / "cache")
    before = state(out)
    config: Any = tiny_config(out, ray={"concurrent_trials": 1})  # the tiny job ran two at a time

    def halfway() -> bool:
        return not (out / "report").exists() and len([*(out / "study").glob("trials-*.json")]) >= 3

    with interrupted_once(halfway), pytest.raises(KeyboardInterrupt):
        run_job(config, force=["study"], reporter=Reporter("quiet"))
    found = Continued(out, before, state(out / "study"), mlflow_runs(out))
    run_job(config, reporter=Reporter("quiet"))
    return found


def test_force_redoes_the_stage_and_what_follows(continued: Continued) -> None:
    now = state(continued.out)
    kept = {name for name in now if name.split("/")[0] in ("simulate", "shard", "pretrain", "features")}
    assert kept
    assert {name: now[name] for name in kept} == {name: continued.before[name] for name in kept}
    for name in ("study/done.json", "report/done.json", "report/results.csv", "model/model.json"):
        assert now[name][0] > continued.before[name][0]


def test_an_interrupted_study_continues(continued: Continued) -> None:
    records = {name for name in continued.halfway if name.endswith(".json")}
    assert 3 <= len(records) < TRIALS
    now = state(continued.out / "study")
    assert {name: now[name] for name in records} == {name: continued.halfway[name] for name in records}
    works = list((continued.out / "study").glob("runs-*.json"))
    assert sum(len(json.loads(path.read_text())) for path in works) == RUNS


def test_continuing_doubles_no_run(continued: Continued) -> None:
    assert continued.runs_halfway[0] == ["KILLED"]
    parents, nested = mlflow_runs(continued.out)
    assert parents == ["FINISHED"]
    assert set(nested.values()) == {1}
    assert len(nested) == TRIALS + RUNS


def test_a_run_names_its_data_also_where_it_found_them(continued: Continued, tiny_job: Path) -> None:
    from mlflow import MlflowClient

    digest = json.loads((tiny_job / "shard" / "manifest.json").read_text())["digest"]
    for out in (tiny_job, continued.out):  # the latter's shards were made by another run
        client = MlflowClient(tracking_uri=default_uri(out))
        runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        (data,) = parent.inputs.dataset_inputs
        assert data.dataset.digest == digest[:32]


@pytest.mark.parametrize("name", ["results.csv", "trials.csv", "summary.csv", "report.html"])
def test_neither_interruption_nor_concurrency_changes_results(
    continued: Continued, tiny_job: Path, name: str
) -> None:
    assert (continued.out / "report" / name).read_bytes() == (tiny_job / "report" / name).read_bytes()


def test_what_another_study_has_made_is_taken_from_the_cache(
    tiny_job: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same movies and pretraining, other heads: nothing is trained or embedded again."""
    out = tmp_path / "runs" / "other"
    config = tiny_config(
        out, study={"heads": ["pooled"], "trials": 1}, cache={"folder": str(tiny_job.parent / "cache")}
    )
    run_job(config, reporter=Reporter("json"))
    assert not (out / "pretrain" / "checkpoints").exists()
    for name in ("model/tap.safetensors", "log.jsonl"):
        assert (out / "pretrain" / name).read_bytes() == (tiny_job / "pretrain" / name).read_bytes()
    facts = json.loads((out / "features" / "done.json").read_text())["facts"]
    assert (facts["computed"], facts["cached"]) == (0, 2)
    assert len(pd.read_csv(out / "report" / "results.csv")) == RUNS


def test_evicted_features_are_computed_again(tiny_job: Path, tmp_path: Path, ray_cluster: None) -> None:
    out = tmp_path / "runs" / "tiny"
    shutil.copytree(tiny_job, out)  # without its cache
    run_job(tiny_config(out), force=["study"], reporter=Reporter("quiet"))
    results = (folder / "report" / "results.csv" for folder in (out, tiny_job))
    assert next(results).read_bytes() == next(results).read_bytes()
    before = files(out)
    run_job(tiny_config(out), reporter=Reporter("quiet"))
    assert files(out) == before  # every stage is still done


@pytest.mark.parametrize(
    ("done", "force", "left"),
    [
        ("shard pretrain", (), f"shard pretrain features study {INSIGHT}"),  # the unfinished ones continue
        ("shard pretrain features", ("pretrain",), "shard"),
        (
            "shard features report",
            (),
            f"shard pretrain study {INSIGHT}",
        ),  # pretrain was lost: what followed goes
        ("SHARD pretrain", (), ""),  # made from other inputs
        ("shard pretrain FEATURES study", (), "shard pretrain"),
    ],
)
def test_what_is_stale_is_forgotten(done: str, force: tuple[str, ...], left: str, tmp_path: Path) -> None:
    """Names in capitals were done with another key; every stage has left something."""
    folder, names = RunFolder(tmp_path), list(STAGES[1:])
    for name in names:
        (tmp_path / name).mkdir()
        if name.upper() in done.upper().split():
            folder.mark_done(name, "key" if name in done.split() else "old", n=1)
    _forget(folder, _stale(folder, names, dict.fromkeys(names, "key"), force))
    here = {path.name for path in tmp_path.iterdir()}
    assert here - {"report"} == set(left.split())
    assert not folder.facts("report") or "report" in left


def test_given_weights_take_the_place_of_training(tiny_job: Path, tmp_path: Path, ray_cluster: None) -> None:
    """The same weights have the same arrow accuracy, and nothing is trained."""
    trained = tiny_job / "pretrain" / "model"
    config = tiny_config(tmp_path / "given", pretrain={"weights": str(trained)})
    out = run_job(config, until="pretrain", reporter=Reporter("quiet"))
    facts = (json.loads((run / "pretrain" / "done.json").read_text())["facts"] for run in (out, tiny_job))
    (told,), (own,) = (each["nets"] for each in facts)
    for name in ("weights_sha256", "arrow_accuracies"):
        assert told[name] == own[name]
    assert not (out / "pretrain" / "ray").exists()
    assert (out / "pretrain" / "log.jsonl").read_text() == ""
    with pytest.raises(UserError, match="is of preset 'unet-8s2', not 'unet-16'"):
        run_job(tiny_config(tmp_path / "other", pretrain={"weights": str(trained), "preset": "unet-16"}))
    assert not (tmp_path / "other").exists()
