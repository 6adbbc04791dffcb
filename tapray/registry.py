"""Models in the store's registry: one name for each study, its latest version of alias `best`."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tapray.tracking import IDENTITY, Tracker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def register(
    tracker: Tracker,
    run_id: str,
    name: str,
    folder: Path,
    example: NDArray[np.float32],
    answer: NDArray[np.float64],
) -> str:
    """Makes a model folder a version of the registered model `name`, alias `best`; returns its number.

    The same folder of the same run is registered once. `example` and `answer` are what goes in and what
    comes out: they give the signature.
    """
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException
    from mlflow.models import infer_signature

    client, digest = tracker.client, _digest(folder)
    with suppress(MlflowException):  # it is there already
        client.create_registered_model(name)
    known = client.search_model_versions(f"name = '{name}'")
    found = [v for v in known if v.run_id == run_id and v.tags.get(IDENTITY) == digest]
    if not found:
        with tempfile.TemporaryDirectory() as scratch:
            mlflow.pyfunc.save_model(
                Path(scratch) / "registered",
                loader_module="tapray.serving",
                data_path=str(folder),
                signature=infer_signature(example, answer),
                input_example=example,
                pip_requirements=["tapray"],
            )
            tracker.artifact(run_id, Path(scratch) / "registered", f"registered/{digest[:12]}")
        source = f"{client.get_run(run_id).info.artifact_uri}/registered/{digest[:12]}"
        found = [client.create_model_version(name, source, run_id, tags={IDENTITY: digest})]
    client.set_registered_model_alias(name, "best", found[0].version)
    return str(found[0].version)


def _digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()
