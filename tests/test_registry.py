"""The registered model of a study: what MLflow loads by its name, and that it is there once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapray.console import Reporter
from tapray.detector import load_model
from tapray.job import run_job
from tapray.registry import register
from tapray.serving import Served, example
from tapray.stores import default_uri
from tapray.tracking import Tracker
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def versions(uri: str, name: str = "tiny") -> dict[str, list[str]]:
    """The number of every version of a registered model, with its aliases."""
    store = client(uri)
    aliases = store.get_registered_model(name).aliases
    found = store.search_model_versions(f"name = '{name}'")
    return {str(v.version): [a for a, number in aliases.items() if number == v.version] for v in found}


def loaded(uri: str, name: str = "tiny") -> Any:
    """The best model, as the documentation says to load it."""
    import mlflow.pyfunc

    with pytest.MonkeyPatch.context() as patch:  # jobs of other tests are to keep their own store
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        return mlflow.pyfunc.load_model(f"models:/{name}@best")


def test_the_best_model_answers_as_the_run_folders_model_does(tiny_job: Path) -> None:
    own = load_model(tiny_job / "model")
    model = loaded(default_uri(tiny_job))
    pairs = model.input_example
    np.testing.assert_array_equal(pairs, example(own))
    assert pairs.dtype == np.float32
    probabilities = model.predict(pairs)
    np.testing.assert_allclose(probabilities, Served(own).predict(pairs), rtol=0, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.shape == (len(pairs), own.crops.classes)
    more = np.random.default_rng(1).random((5, *pairs.shape[1:]), np.float32)  # any number of crops
    np.testing.assert_allclose(model.predict(more), Served(own).predict(more), rtol=0, atol=1e-6)


def test_the_signature_says_what_goes_in_and_comes_out(tiny_job: Path) -> None:
    from mlflow.exceptions import MlflowException

    model = loaded(default_uri(tiny_job))
    signature = model.metadata.signature
    (into,), (out,) = signature.inputs.inputs, signature.outputs.inputs
    assert (into.type, into.shape) == (np.dtype(np.float32), (-1, 2, 32, 32))
    assert (out.type, out.shape) == (np.dtype(np.float64), (-1, 2))
    with pytest.raises(MlflowException, match="shape"):
        model.predict(np.zeros((2, 2, 16, 16), np.float32))


def test_a_job_registers_one_version_of_its_own_run(tiny_job: Path) -> None:
    """Though it was stopped after every stage."""
    uri = default_uri(tiny_job)
    assert versions(uri) == {"1": ["best"]}
    store = client(uri)
    run = store.get_run(store.get_model_version_by_alias("tiny", "best").run_id)
    assert (run.data.tags["kind"], run.info.run_name) == ("job", "tiny")


def test_a_study_run_again_has_still_one_version(tiny_job: Path, tmp_path: Path, ray_cluster: None) -> None:
    out = tmp_path / "runs" / "tiny"
    shutil.copytree(tiny_job, out)
    for _ in range(2):
        run_job(tiny_config(out), force=["report"], reporter=Reporter("quiet"))
        assert versions(default_uri(out)) == {"1": ["best"]}


def test_another_model_and_another_run_are_versions_of_their_own(tiny_job: Path, tmp_path: Path) -> None:
    tracker = Tracker.open(default_uri(tmp_path / "runs" / "tiny"), "tapray")
    folder = tmp_path / "model"
    shutil.copytree(tiny_job / "model", folder)
    pairs = example(load_model(folder))
    answer = Served(load_model(folder)).predict(pairs)
    runs = [tracker.run("tiny", f"run {n}") for n in range(2)]

    def registered(run: int) -> str:
        return register(tracker, runs[run], "tiny", folder, pairs, answer)

    assert [registered(0), registered(0)] == ["1", "1"]
    before = (folder / "model.json").read_text()
    (folder / "model.json").write_text(json.dumps({**json.loads(before), "temperature": 50.0}))
    assert registered(0) == "2"
    assert versions(tracker.uri) == {"1": [], "2": ["best"]}
    flat = loaded(tracker.uri).predict(pairs)
    np.testing.assert_allclose(flat, Served(load_model(folder)).predict(pairs), rtol=0, atol=1e-6)
    assert np.abs(flat - answer).max() > 1e-3
    (folder / "model.json").write_text(before)
    assert registered(0) == "1"  # it is known, and the best again
    assert versions(tracker.uri) == {"1": ["best"], "2": []}
    np.testing.assert_allclose(loaded(tracker.uri).predict(pairs), answer, rtol=0, atol=1e-6)
    assert registered(1) == "3"
    assert versions(tracker.uri) == {"1": [], "2": [], "3": ["best"]}
