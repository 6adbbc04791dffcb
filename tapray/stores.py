"""Addresses of experiment stores: which one a run folder has, whether it answers, its page."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tapray.errors import UserError
from tapray.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SILENCE = "MLFLOW_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 MLFLOW_LOGGING_LEVEL=CRITICAL GIT_PYTHON_REFRESH=quiet"
_SILENCE += " MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT=1"
SQLITE, HTTP = "sqlite:///", ("http://", "https://")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def default_uri(out: Path) -> str:
    """The store of a run folder: an SQLite file beside it, by its absolute path (workers chdir)."""
    return f"{SQLITE}{Path(out).absolute().parent / 'mlflow.db'}"


def serve(uri: str, port: int) -> list[str]:
    """The command line of MLflow's comparison page for a store; UserError if that is a server already.

    The store's address goes through the environment: the process list must not show a password.
    """
    if uri.startswith(HTTP):
        raise UserError("is a server with a page of its own", where=redact(uri), todo="open it in a browser")
    os.environ["MLFLOW_BACKEND_STORE_URI"] = absolute(uri)
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # saves eight idle processes
    _quiet()
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "ui", *options]


def experiment_id(uri: str, name: str) -> str | None:
    """The id of an experiment; None if the store has none of that name."""
    with _usable(uri):
        found = connected(absolute(uri)).get_experiment_by_name(name)
    return None if found is None else str(found.experiment_id)


def _quiet() -> None:
    """Keeps MLflow and what it imports from chatting and from reporting home; before its import."""
    for setting in _SILENCE.split():
        os.environ.setdefault(*setting.split("="))


def connected(uri: str) -> MlflowClient:
    """MLflow's client of a store."""
    _quiet()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def absolute(uri: str) -> str:
    """An SQLite address with an absolute path; any other as it is."""
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}" if uri.startswith(SQLITE) else uri


@contextmanager
def first_use(uri: str) -> Iterator[None]:
    """Turns what makes a store unusable into one line, soon, and keeps two jobs from making one."""
    with _usable(uri), ExitStack() as stack:
        if uri.startswith(SQLITE):
            path = Path(uri.removeprefix(SQLITE))
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_name(f".{path.name}.lock").open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # MLflow's tables cannot be made by two at once
        _answers(uri)
        yield


def reach(uri: str) -> None:
    """Raises UserError if a store on the network does not answer this machine, or is not well."""
    if uri.startswith(SQLITE):
        return
    with _usable(uri):
        if uri.startswith(HTTP):
            _healthy(uri)
        else:
            _answers(uri)


def _healthy(uri: str) -> None:
    """Raises if a server does not say that it is well: a proxy, or another server, would answer too."""
    import requests

    status = requests.get(f"{uri.rstrip('/')}/health", timeout=10).status_code
    if status != requests.codes.ok:
        raise ConnectionError(f"/health answers {status}")


def _answers(uri: str) -> None:
    """Raises what keeps a store from answering: MLflow itself would try for minutes before it gives up."""
    import requests
    import sqlalchemy

    if uri.startswith(HTTP):
        requests.get(uri, timeout=10)
    elif uri.startswith(_DATABASES):
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        sqlalchemy.inspect(engine).get_table_names()


@contextmanager
def _usable(uri: str) -> Iterator[None]:
    """Within the block what makes a store unusable is one line."""
    _quiet()
    import requests
    import sqlalchemy
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError, ImportError) as error:
        no_answer = isinstance(error, requests.RequestException)  # its text is long and unclear
        reason = type(error).__name__ if no_answer else said(error)
        what = f"tracking store cannot be used ({reason})"
        raise UserError(what, where=redact(uri), todo="check tracking.uri") from None


def said(error: Exception) -> str:
    """The first line of what a store says, its database itself where it is one, without its secrets."""
    error = getattr(error.__cause__, "orig", None) or error
    return redact(str(error).strip().split("\n")[0])[:200]
