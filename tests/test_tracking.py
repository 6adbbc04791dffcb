"""What MLflow reads back from a real SQLite store, above all when a job is continued."""

from __future__ import annotations

import json
import math
import pickle
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapray import comparison
from tapray.context import TAGS
from tapray.errors import UserError
from tapray.finished import Finished
from tapray.provenance import git_commit
from tapray.stores import default_uri
from tapray.study.results import read_records
from tapray.tracking import CHANGED, IDENTITY, NONFINITE, Tracker
from tests.conftest import TINY


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """One store for all tests: making one takes seconds."""
    out = tmp_path_factory.mktemp("tracking") / "runs" / "demo"
    return Tracker.open(default_uri(out), "tapray")


def read(tracker: Tracker, run_id: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracker.uri).get_run(run_id)


def history(tracker: Tracker, run_id: str, key: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=tracker.uri).get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def runs_of(tracker: Tracker, identity: str) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracker.uri)
    found = client.search_runs([tracker.experiment_id], f"tags.`{IDENTITY}` = '{identity}'")
    return [run.info.run_id for run in found]


def test_import_is_cheap() -> None:
    code = "import sys, tapray.tracking; print('mlflow' in sys.modules, 'pandas' in sys.modules)"
    argv = [sys.executable, "-c", code]
    root = Path(__file__).parents[1]
    assert subprocess.run(argv, cwd=root, capture_output=True, text=True).stdout == "False False\n"


def test_open_finds_the_experiment_again(tracker: Tracker) -> None:
    from mlflow import MlflowClient

    assert Tracker.open(tracker.uri, "tapray", Path("/elsewhere")) == tracker
    experiment = MlflowClient(tracking_uri=tracker.uri).get_experiment(tracker.experiment_id)
    store = Path(tracker.uri.removeprefix("sqlite:///"))
    assert experiment.artifact_location == (store.parent / "mlartifacts").as_uri()
    MlflowClient(tracking_uri=tracker.uri).delete_experiment(Tracker.open(tracker.uri, "old").experiment_id)
    with pytest.raises(UserError, match="experiment 'old' was deleted"):
        Tracker.open(tracker.uri, "old")


def test_same_identity_continues_one_run(tracker: Tracker) -> None:
    parent = tracker.run("job", "job/1")
    first = tracker.run("tap-5", "job/1/tap's", parent, {"init": "tap"})
    tracker.finish(first)
    assert read(tracker, first).info.status == "FINISHED"
    again = pickle.loads(pickle.dumps(tracker)).run("tap-5", "job/1/tap's", parent, {"init": "tap", "n": "2"})
    other = tracker.run("tap-10", "job/1/TAP's", parent)
    assert again == first
    assert other != first
    run = read(tracker, first)
    assert (run.info.run_name, run.info.status) == ("tap-5", "RUNNING")
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert (run.data.tags["init"], run.data.tags["n"]) == ("tap", "2")
    with pytest.raises(ValueError, match="double quote"):
        tracker.run("x", 'a"b')


def test_deleted_runs_are_not_continued(tracker: Tracker) -> None:
    from mlflow import MlflowClient

    first = tracker.run("a", "deleted")
    MlflowClient(tracking_uri=tracker.uri).delete_run(first)
    assert tracker.run("a", "deleted") != first
    assert len(runs_of(tracker, "deleted")) == 1


def test_params_are_flat_and_may_be_logged_again(tracker: Tracker) -> None:
    run = tracker.run("p", "params")
    params: dict[str, Any] = {"crops": {"size": 48, "draw": "sites"}, "seeds": (0, 1), "note": "x" * 7000}
    params["tracking"] = {"uri": "http://me:hush@host"}
    params |= {f"p{i:03d}": i for i in range(150)}
    tracker.params(run, params)
    tracker.params(run, params | {"late": 1})
    there = read(tracker, run).data
    assert (there.params["crops.size"], there.params["seeds"], there.params["late"]) == ("48", "(0, 1)", "1")
    assert (len(there.params["note"]), len(there.params)) == (6000, 156)
    assert there.params["tracking.uri"] == "http://***@host"
    assert CHANGED not in there.tags
    tracker.params(run, {"crops": {"size": 64}})
    there = read(tracker, run).data
    assert (there.params["crops.size"], there.tags[CHANGED]) == ("48", "crops.size=64")


def test_metrics_leave_out_what_is_not_finite(tracker: Tracker) -> None:
    run = tracker.run("m", "metrics")
    tracker.metrics(run, {"loss": np.float32(0.5), "ap": math.nan}, step=3)
    tracker.metrics(run, {"ece": math.inf})
    there = read(tracker, run).data
    assert there.metrics == {"loss": 0.5}
    assert there.tags[NONFINITE] == "ap, ece"
    assert history(tracker, run, "loss") == [(3, 0.5)]


def test_metric_history_is_not_doubled(tracker: Tracker) -> None:
    run = tracker.run("h", "history")
    records: list[dict[str, Any]] = [
        {"step": i, "loss": 1 / (i + 1), "arrow": np.float32(0.5), "phase": "x"} for i in range(700)
    ]
    tracker.metric_history(run, [*records, {"step": 699, "loss": 0.25}])  # a step begun twice
    more = [*records, {"step": 700, "loss": 0.125, "ap": math.nan}]
    tracker.metric_history(run, more)
    tracker.metric_history(run, more)
    expected = [(i, 1 / (i + 1)) for i in range(699)] + [(699, 0.25), (700, 0.125)]
    assert history(tracker, run, "loss") == expected
    assert len(history(tracker, run, "arrow")) == 700
    there = read(tracker, run).data
    assert (set(there.metrics), there.tags[NONFINITE]) == ({"loss", "arrow"}, "ap")
    tracker.metric_history(run, [{"epoch": 5, "val": 2}], step_key="epoch")
    assert history(tracker, run, "val") == [(5, 2.0)]


def test_records_go_to_the_store_as_they_come_and_once(tracker: Tracker) -> None:
    run = tracker.run("l", "live")
    records = [{"step": step, "loss": 1 / step, "phase": "x"} for step in range(1, 6)]
    log = tracker.live(run)
    for record in records[:3]:
        log(record)
    assert history(tracker, run, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    log = tracker.live(run)  # a continued job begins again at its checkpoint
    for record in records[1:]:
        log(record)
    tracker.metric_history(run, records)
    assert history(tracker, run, "loss") == [(step, 1 / step) for step in range(1, 6)]


def test_artifacts_models_and_datasets(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights.bin").write_bytes(b"w")
    (tmp_path / "curve.svg").write_text("<svg/>")
    run = tracker.run("a", "artifacts")
    tracker.artifact(run, tmp_path / "curve.svg", "figures")
    tracker.artifact(run, tmp_path / "curve.svg")
    tracker.model(run, tmp_path / "m")
    digest = "0123456789abcdef" * 4
    for _ in range(2):
        tracker.dataset(run, "crops", digest, tmp_path, "study")
    there = read(tracker, run)
    root = Path(there.info.artifact_uri.removeprefix("file://"))
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {"figures/curve.svg", "curve.svg", "model/weights.bin"}
    (entry,) = there.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("crops", digest[:36])
    assert json.loads(entry.dataset.profile) == {"digest": digest}
    assert json.loads(entry.dataset.source) == {"uri": str(tmp_path)}
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "study")]


def test_sweep_ends_children_still_running(tracker: Tracker) -> None:
    parent, stranger = tracker.run("job", "sweep"), tracker.run("other", "sweep/other")
    running = [tracker.run(f"c{i}", f"sweep/{i}", parent) for i in range(2)]
    done = tracker.run("d", "sweep/done", parent)
    tracker.finish(done)
    tracker.sweep(parent)
    assert [read(tracker, run).info.status for run in running] == ["KILLED", "KILLED"]
    assert read(tracker, done).info.status == "FINISHED"
    assert read(tracker, stranger).info.status == read(tracker, parent).info.status == "RUNNING"


def test_nothing_is_printed(tracker: Tracker) -> None:
    code = (
        "import sys; from tapray.tracking import Tracker\n"
        "tracker = Tracker(*sys.argv[1:]); run = tracker.run('q', 'quiet'); tracker.metrics(run, {'a': 1})"
    )
    argv = [sys.executable, "-c", code, tracker.uri, tracker.experiment_id]
    root = Path(__file__).parents[1]
    result = subprocess.run(argv, cwd=root, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(runs_of(tracker, "quiet")) == 1


def test_unusable_stores_are_one_quick_line(tmp_path: Path) -> None:
    (tmp_path / "not.db").write_text("This is plain text, surely no database. " * 50)
    with socket.socket() as taken:  # bound but not listening: nobody answers here
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        uris = {
            f"sqlite:///{tmp_path}/not.db": "file is not a database",
            f"sqlite:///{tmp_path}/not.db/a.db": "Not a directory|File exists",
            f"http://me:hush@{address}": "cannot be used .ConnectionError.",
            f"postgresql://me:hush@{address}/x": "psycopg|refused",
            f"{tmp_path}/mlruns": "filesystem tracking backend",
            "foo://me:hush@x": "unsupported URI",
        }
        begun = time.monotonic()
        for uri, text in uris.items():
            with pytest.raises(UserError, match=text) as caught:
                Tracker.open(uri, "tapray")
            assert "hush" not in str(caught.value)
            assert "\n" not in str(caught.value)
        assert time.monotonic() - begun < 30  # MLflow alone takes minutes
    assert not (tmp_path / "mlruns").exists()


def test_a_store_that_breaks_in_the_middle_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker.open(f"sqlite:///{tmp_path}/m.db", "broken")
    run_id = tracker.run("job", "broken")
    with sqlite3.connect(tmp_path / "m.db") as database:
        database.execute("DROP TABLE tags")
        database.execute("DROP TABLE metrics")
    told = r"m\.db: tracking store no longer answers \(no such table: metrics\); run the same command again"
    with pytest.raises(UserError, match=told), tracker.answering():
        tracker.metrics(run_id, {"ap": 1})
    tracker.abandon(run_id, "FAILED")
    assert not capfd.readouterr().err  # where MLflow would print a traceback


def test_finished_children_are_logged_once_and_whole(tracker: Tracker) -> None:
    parent = tracker.run("job", "job")
    runs = [
        Finished(
            f"trial {n}",
            f"job/trial {n}",
            "FAILED" if n == 2 else "FINISHED",
            {"kind": "trial"},
            {"trial": n},
            {"ap": n / 4},
        )
        for n in range(4)
    ]
    tracker.children(parent, runs[:3])
    half = tracker.client.create_run(
        tracker.experiment_id, tags={"tapray.identity": "job/trial 3", "mlflow.parentRunId": parent}
    )  # as a killed driver leaves it
    again = Tracker(tracker.uri, tracker.experiment_id)
    again.children(parent, runs)
    again.children(parent, runs)
    query = f"tags.`mlflow.parentRunId` = '{parent}'"
    found = sorted(
        tracker.client.search_runs([tracker.experiment_id], query), key=lambda r: r.data.params["trial"]
    )
    assert [run.info.status for run in found] == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]
    assert [run.data.metrics["ap"] for run in found] == [0, 0.25, 0.5, 0.75]
    assert found[3].info.run_id == half.info.run_id
    assert found[0].info.run_name == "trial 0"
    assert found[0].data.tags["kind"] == "trial"
    anew = [replace(runs[0], metrics={"ap": 0.9, "seconds": 1.0}), replace(runs[1], metrics={"ap": 0.25})]
    Tracker(tracker.uri, tracker.experiment_id).children(parent, anew)  # a study that was run anew
    left = tracker.client.search_runs([tracker.experiment_id], query)
    assert sorted(run.data.metrics["ap"] for run in left) == [0.25, 0.5, 0.75, 0.9]
    slower = [replace(anew[0], metrics={"ap": 0.9, "seconds": 2.0})]
    Tracker(tracker.uri, tracker.experiment_id).children(parent, slower)
    assert {run.info.run_id for run in left} == {
        run.info.run_id for run in tracker.client.search_runs([tracker.experiment_id], query)
    }


def runs_in(out: Path, query: str) -> dict[str, Any]:
    """The runs of a job's store that a query of MLflow's page finds, by name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(out))
    found = client.search_runs([found.experiment_id for found in client.search_experiments()], query)
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("trial", "trial"), ("run", "seed")])
def test_every_trial_and_final_run_is_tagged_with_what_it_is(tiny_job: Path, kind: Any, number: str) -> None:
    records = read_records(tiny_job / "study", kind)
    runs, study = runs_in(tiny_job, f"tags.kind = '{kind}'"), TINY["study"]
    assert len(runs) == len(records) == 2 * study["trials" if kind == "trial" else "seeds"]
    (job,) = runs_in(tiny_job, "tags.kind = 'job'").values()
    for record in records:
        run = runs[f"{kind} {record['init']} {record['head']} {record['budget']} #{record[number]}"]
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == job.info.run_id
        assert tags["split"] == job.data.tags["split"] == "movie"
        wanted = {"init", "head", "budget", "tune_trial", "status", number}
        assert wanted == set(TAGS) & set(tags)
        assert {name: tags[name] for name in wanted} == {name: str(record[name]) for name in wanted}
        assert all(tags[name] for name in wanted)
        assert ("mlflow.source.git.commit" in tags) == (git_commit() is not None)
    cells = {tuple(run.data.tags[name] for name in ("init", "head", "budget")) for run in runs.values()}
    assert cells == {("tap", "linear", "2"), ("end_to_end", "linear", "2")}
    numbers = sorted(int(run.data.tags[number]) for run in runs.values())
    assert numbers == sorted([*range(len(runs) // 2)] * 2)


@pytest.mark.slow
def test_the_comparison_page_finds_the_final_runs_its_groups_and_columns(tiny_job: Path) -> None:
    """By the filter, parameters and metrics that the view, kept as a tag of the experiment, names."""
    tracker = Tracker.open(default_uri(tiny_job), "tapray")
    view = json.loads(tracker.client.get_experiment(tracker.experiment_id).tags[comparison.TAG])
    runs = runs_in(tiny_job, view["searchFilter"])
    assert len(runs) == 2 * TINY["study"]["seeds"]
    factors = [key["groupByData"] for key in view["groupBy"]["groupByKeys"]]
    groups = {",".join(f"param.{name}.{run.data.params[name]}" for name in factors) for run in runs.values()}
    assert view["groupsExpanded"] == dict.fromkeys(groups, False)
    columns = {name.removeprefix("metrics.").strip("`") for name in view["selectedColumns"]}
    for run in runs.values():
        assert columns <= set(run.data.metrics)
