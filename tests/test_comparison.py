"""MLflow's experiment page, as a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from matplotlib.image import imsave

from tapray.comparison import TAG, page, view
from tapray.stores import default_uri
from tapray.tracking import Tracker

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
CELLS = [
    {"study": study, "split": "tile", "init": "tap", "head": "linear", "budget": budget}
    for study, budget in (("demo", 5), ("demo", 10), ("hela", 10))
]


class Served(NamedTuple):
    """Addresses of the experiment's page and of the job's run; the folder that is served."""

    page: str
    job: str
    folder: Path


def test_the_view_folds_cells_away() -> None:
    folded = json.loads(view(CELLS[2:], view(CELLS[:2])))["groupsExpanded"]
    assert folded == {
        f"param.study.{name},param.split.tile,param.init.tap,param.head.linear,param.budget.{n}": False
        for name, n in (("demo", 5), ("demo", 10), ("hela", 10))
    }
    assert page("http://127.0.0.1:5000", "3").startswith("http://127.0.0.1:5000/#/experiments/3/runs?")


def test_the_view_of_many_studies_forgets_the_oldest_cells(tmp_path: Path) -> None:
    """MLflow refuses a longer one; the study that is on record last is folded whole."""
    many = [
        {"study": f"night-{night}", "split": "time_block", "init": "tap", "head": head, "budget": budget}
        for night in range(60)
        for head in ("pooled", "linear")
        for budget in (5, 10, 15)
    ]
    tracker = Tracker.open(default_uri(tmp_path / "run"), "tapray")
    for first in range(0, len(many), 36):
        tracker.show(many[first : first + 36])
    kept = tracker.client.get_experiment(tracker.experiment_id).tags[TAG]
    folded = [*json.loads(kept)["groupsExpanded"]]
    assert len(kept) <= 20_000
    assert 36 < len(folded) < len(many)
    assert folded == [*json.loads(view(many[-len(folded) :]))["groupsExpanded"]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A store of a job with a picture and six final runs, as `tapray ui` serves it."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("ui")
    uri = default_uri(folder / "run")
    tracker = Tracker.open(uri, "tapray")
    client = MlflowClient(uri)
    job = tracker.run("demo", "demo/1", None, {"kind": "job"})
    imsave(folder / "label_budget.png", np.eye(200))
    tracker.artifact(job, folder / "label_budget.png", "report")
    for number, cell in enumerate(CELLS * 2):
        run = client.create_run(tracker.experiment_id, run_name=f"run {number}", tags={"kind": "run"})
        for key, value in cell.items():
            client.log_param(run.info.run_id, key, value)
        for metric, value in (("ap", 0.5 + 0.1 * number), ("f1", 0.123), ("ece_after", 0.0456)):
            client.log_metric(run.info.run_id, metric, value)
        client.set_terminated(run.info.run_id)
    tracker.show(CELLS[:2])
    tracker.show(CELLS[2:])  # of another study in the same store
    assert TAG in client.get_experiment(tracker.experiment_id).tags
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tapray", "ui", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout
        address = server.stdout.readline().strip()
        root = address.partition("/#")[0]
        wait_for(root)
        yield Served(address, f"{root}/#/experiments/{tracker.experiment_id}/runs/{job}", folder)
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_the_page_shows_each_cell_and_its_means(served: Served) -> None:
    text = shown(served.page, served.folder)
    for cell in CELLS:
        assert ", ".join(f"{name}: {value}" for name, value in cell.items()) in text
    best_first = (">0.85 <", ">0.75 <", ">0.65 <")  # 0.65 of 0.5 and 0.8; studies stay apart
    means = [text.index(mean) for mean in best_first]
    assert means == sorted(means)
    for shown_too in (">f1<", ">ece_after<", ">0.123 <", ">0.0456 <"):
        assert shown_too in text
    assert "run 0" not in text  # folded away


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_the_charts_show_means_of_cells_and_scores_against_calibration(served: Served) -> None:
    text = shown(f"{served.page}&compareRunsMode=CHART", served.folder)
    titles = re.findall(r'<h4 [^>]*title="([^"]+)"', text)
    assert titles == ["ap", "f1", "ece_after", "ap vs. ece_after"]
    bars = re.findall(r'class="trace bars".*?</g></g></g></g>', text)
    assert len(bars) == 3
    assert re.findall(r'data-unformatted="([^"]+)"', bars[0]) == ["0.65", "0.75", "0.85"]  # by cell
    scatter = text[text.index('class="trace scatter') :]
    assert scatter[: scatter.index("</svg>")].count('<path class="point ') == len(CELLS)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_pictures_of_a_job_are_shown(served: Served) -> None:
    text = shown(f"{served.job}/artifacts/report/label_budget.png", served.folder)
    assert re.search(r'<img alt="report/label_budget.png" src="blob:', text)


def wait_for(address: str) -> None:
    for _ in range(300):
        try:
            urlopen(address, timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail("the server does not answer")


def shown(address: str, scratch: Path) -> str:
    """The page as the browser has built it."""
    assert BROWSER
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1900,900"]
    command = [BROWSER, *options, f"--user-data-dir={scratch / 'browser'}", "--virtual-time-budget=30000"]
    done = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, timeout=180, check=True
    )
    return done.stdout
