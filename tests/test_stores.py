"""Addresses of stores: where one lies, what of it may be shown, how its page is opened."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tapray.errors import UserError
from tapray.stores import default_uri, serve


def test_default_uri_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_uri(Path("runs/demo")) == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_serve_is_local_and_hides_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")  # restored after the test
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    monkeypatch.chdir(tmp_path)
    argv = serve("postgresql://me:hush@db/x", 5001)
    assert argv[:4] == [sys.executable, "-m", "mlflow", "ui"]
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--port") + 1] == "5001"
    assert "hush" not in " ".join(argv)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "1"
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:hush@db/x"
    serve("sqlite:///a.db", 5001)
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/a.db"
    with pytest.raises(UserError, match=r"http://\*\*\*@host: is a server with a page of its own"):
        serve("http://me:hush@host", 5001)
