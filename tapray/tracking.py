"""Writes to the experiment store. It, tapray.registry and tapray.stores alone import MLflow, once it is used.

A ``Tracker`` is two strings, so it travels to workers; every call names its run.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat

from tapray import comparison
from tapray.errors import UserError
from tapray.finished import Child, Finished, Status, Tags
from tapray.redaction import redact
from tapray.stores import HTTP, SQLITE, absolute, connected, first_use, said

if TYPE_CHECKING:
    from mlflow import MlflowClient

IDENTITY = "tapray.identity"  # tag: what a run is looked up by
NONFINITE = "tapray.nonfinite"  # tag: metrics of which a value was not finite and was left out
CONTENT = "tapray.content"  # tag: hash of what is logged of a run that is over
CHANGED = "tapray.changed"  # tag: parameters that a continued run has with another value
Records = Iterable[Mapping[str, Any]]
_PARENT = "mlflow.parentRunId"
_MAX_PARAM, _MAX_DIGEST = 6000, 36  # characters that MLflow keeps
_PER_CALL_METRICS, _PER_CALL_PARAMS = 1000, 100


def _numbers(records: Records, step_key: str) -> dict[tuple[str, int], float]:
    """The numbers of records by name and step; the last record of a step counts."""
    return {
        (key, int(record[step_key])): float(value)
        for record in records
        for key, value in record.items()
        if key != step_key and isinstance(value, Real)
    }


@dataclass(frozen=True)
class Tracker:
    """Writes to one experiment of a store; made by ``open`` on the driver, then used anywhere."""

    uri: str
    experiment_id: str

    @classmethod
    def open(cls, uri: str, experiment: str, artifact_root: Path | None = None) -> Tracker:
        """Makes store and experiment where they are missing; to be called before any worker.

        ``artifact_root``: for SQLite by default ``mlartifacts`` beside the file. Raises UserError
        if the store cannot be used.
        """
        uri = absolute(uri)
        if uri.startswith(SQLITE) and artifact_root is None:
            artifact_root = Path(uri.removeprefix(SQLITE)).parent / "mlartifacts"
        with first_use(uri):
            client = connected(uri)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                location = artifact_root.absolute().as_uri() if artifact_root else None
                made = client.create_experiment(experiment, artifact_location=location)
                found = client.get_experiment(made)
            if found.lifecycle_stage != "active":
                what, todo = f"experiment {experiment!r} was deleted", "choose another tracking.experiment"
                raise UserError(what, where=redact(uri), todo=todo)
            if comparison.TAG not in found.tags:
                client.set_experiment_tag(found.experiment_id, comparison.TAG, comparison.view())
        return cls(uri, found.experiment_id)

    def __reduce__(self) -> tuple[type[Tracker], tuple[str, str]]:
        return Tracker, (self.uri, self.experiment_id)  # without the client

    @cached_property
    def client(self) -> MlflowClient:
        """Of the store; for this module and tapray.registry."""
        return connected(self.uri)

    def run(self, name: str, identity: str, parent: str | None = None, tags: Tags | None = None) -> str:
        """The id of the run with this identity, opened again if it is there, else made.

        ``identity`` (without double quotes) is unique in the experiment and the same each time
        the job is run, so that a continued job continues its runs. ``parent`` is a run id.
        """
        if '"' in identity:
            raise ValueError(f"identity with a double quote: {identity}")
        tags = {**(tags or {}), IDENTITY: identity} | ({_PARENT: parent} if parent else {})
        query, order = f'tags.`{IDENTITY}` = "{identity}"', ["attributes.start_time ASC"]
        found = self.client.search_runs([self.experiment_id], query, max_results=1, order_by=order)
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            self._tag(found[0].info.run_id, tags)
        run = found[0] if found else self.client.create_run(self.experiment_id, run_name=name, tags=tags)
        return str(run.info.run_id)

    def children(self, parent: str, runs: Sequence[Finished]) -> None:
        """Logs runs that are over, nested in `parent`, in three calls each; those that are there are left.

        So a continued study may give all that it has. A run that was logged in part is logged again, and one
        that says something else, of a study that was run anew, takes the place of the one there.
        """
        known = self._known_children(parent)
        for run in runs:
            there = known.get(run.identity)
            if there and there.replaced_by(run):
                self.client.delete_run(there.run_id)
                there = None
            elif there and there.status == run.status:
                continue
            run_id = there.run_id if there else self._made(run, parent)
            self._log(run_id, [(key, 0, value) for key, value in run.metrics.items()], run.params)
            self.finish(run_id, run.status)
            known[run.identity] = Child(run_id, run.status, run.content)

    def _made(self, run: Finished, parent: str) -> str:
        tags = {**run.tags, IDENTITY: run.identity, CONTENT: run.content, _PARENT: parent}
        made = self.client.create_run(self.experiment_id, run_name=run.name, tags=tags)
        return str(made.info.run_id)

    def _known_children(self, parent: str) -> dict[str, Child]:
        """The runs nested in a run, by identity; asked of the store once."""
        if parent not in self._families:
            query, token, found = f"tags.`{_PARENT}` = '{parent}'", None, dict[str, Child]()
            while token is None or token:
                page = self.client.search_runs([self.experiment_id], query, page_token=token)
                found |= {
                    run.data.tags[IDENTITY]: Child(
                        run.info.run_id, run.info.status, run.data.tags.get(CONTENT, "")
                    )
                    for run in page
                }
                token = page.token or ""
            self._families[parent] = found
        return self._families[parent]

    @cached_property
    def _families(self) -> dict[str, dict[str, Child]]:
        return {}

    def params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Logs parameters, nested ones by dotted keys; MLflow fixes them, so changes go to a tag."""
        from mlflow.entities import Param

        new = {key: redact(str(value))[:_MAX_PARAM] for key, value in _flat(params)}
        there = self.client.get_run(run_id).data.params
        fresh = [Param(key, value) for key, value in new.items() if key not in there]
        for start in range(0, len(fresh), _PER_CALL_PARAMS):
            self.client.log_batch(run_id, params=fresh[start : start + _PER_CALL_PARAMS])
        if changed := [f"{key}={new[key]}" for key in new if new[key] != there.get(key, new[key])]:
            self._tag(run_id, {CHANGED: ", ".join(changed)[:_MAX_PARAM]})

    def metrics(self, run_id: str, metrics: Mapping[str, SupportsFloat], step: int = 0) -> None:
        """Logs the metrics of one step in one call; non-finite values as in ``metric_history``."""
        self._log(run_id, [(key, step, float(value)) for key, value in metrics.items()])

    def metric_history(self, run_id: str, records: Records, step_key: str = "step") -> None:
        """Logs the numbers of many records, each with its step; what is no number is passed over.

        The last record of a step counts. Steps that a metric has already are left, so a continued
        job may give its whole history. Non-finite values are left out, their keys noted in a tag.
        """
        values = _numbers(records, step_key)
        keys = {key for key, _ in values} & set(self.client.get_run(run_id).data.metrics)
        there = {(key, old.step) for key in keys for old in self.client.get_metric_history(run_id, key)}
        self._log(run_id, [(*at, value) for at, value in values.items() if at not in there])

    def live(self, run_id: str, step_key: str = "step") -> Callable[[Mapping[str, Any]], None]:
        """Logs the numbers of records as they come, those of later steps than the run has.

        Once the store does not answer, no more is logged: `metric_history` gives it all in the end.
        """
        from mlflow.exceptions import MlflowException

        there = self.client.get_run(run_id).data.metrics
        steps = [self.client.get_metric_history(run_id, key)[-1].step for key in there]
        last: float = max(steps, default=-1)

        def log(record: Mapping[str, Any]) -> None:
            nonlocal last
            if record[step_key] > last:
                try:
                    self._log(run_id, [(*at, value) for at, value in _numbers([record], step_key).items()])
                    last = record[step_key]  # a worker that goes on from a checkpoint tells some again
                except MlflowException:  # after minutes
                    last = math.inf

        return log

    def artifact(self, run_id: str, path: Path, folder: str = "") -> None:
        """Stores a file, or all that a folder holds, under ``folder`` of the run's artifacts."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(run_id, str(path), folder or None)

    def model(self, run_id: str, folder: Path) -> None:
        """Stores a model's folder under ``model``."""
        self.artifact(run_id, folder, "model")

    def dataset(self, run_id: str, name: str, digest: str, source: str | Path, context: str) -> None:
        """Notes which data a run used: its name, content hash and place, not the data.

        ``context`` says what for, such as "pretrain". The profile holds the whole hash.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind = "http" if str(source).startswith(HTTP) else "local"
        place = json.dumps({"url" if kind == "http" else "uri": redact(str(source))})
        data = Dataset(name, digest[:_MAX_DIGEST], kind, place, profile=json.dumps({"digest": digest}))
        self.client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", context)])])

    def show(self, cells: Iterable[Mapping[Any, Any]]) -> None:
        """Makes the experiment page fold away the runs of these cells; see ``tapray.comparison``."""
        before = self.client.get_experiment(self.experiment_id).tags.get(comparison.TAG, "")
        self.client.set_experiment_tag(self.experiment_id, comparison.TAG, comparison.view(cells, before))

    def note(self, run_id: str, text: str) -> None:
        """What MLflow shows on the run's page, Markdown."""
        self._tag(run_id, {"mlflow.note.content": text})

    def finish(self, run_id: str, status: Status = "FINISHED") -> None:
        """Ends a run."""
        self.client.set_terminated(run_id, status)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Within the block a store that no longer answers is one line (UserError)."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            what = f"tracking store no longer answers ({said(error)})"
            todo = "run the same command again once it does"
            raise UserError(what, where=redact(self.uri), todo=todo) from None

    def abandon(self, run_id: str, status: Literal["FAILED", "KILLED"]) -> None:
        """Ends a run and its children, if the store still answers: what went wrong may be the store."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            self.sweep(run_id)
            self.finish(run_id, status)

    def sweep(self, parent: str) -> None:
        """Ends the children still running as KILLED: a stopped worker cannot end its own run."""
        query = f"tags.`{_PARENT}` = '{parent}' and attributes.status = 'RUNNING'"
        while children := self.client.search_runs([self.experiment_id], query):
            for child in children:
                self.finish(child.info.run_id, "KILLED")

    def _log(
        self, run_id: str, values: Sequence[tuple[str, int, float]], params: Mapping[str, Any] | None = None
    ) -> None:
        from mlflow.entities import Metric, Param

        now = time.time_ns() // 1_000_000
        finite = [Metric(key, value, now, step) for key, step, value in values if math.isfinite(value)]
        fixed = [Param(key, redact(str(value))[:_MAX_PARAM]) for key, value in (params or {}).items()]
        for start in range(0, max(len(finite), len(fixed)), _PER_CALL_METRICS):
            own = finite[start : start + _PER_CALL_METRICS]
            self.client.log_batch(run_id, metrics=own, params=[] if start else fixed)
        if bad := {key for key, _, value in values if not math.isfinite(value)}:
            known = self.client.get_run(run_id).data.tags.get(NONFINITE, "")
            self._tag(run_id, {NONFINITE: ", ".join(sorted(bad | set(filter(None, known.split(", ")))))})

    def _tag(self, run_id: str, tags: Tags) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        name = f"{prefix}{key}"
        yield from _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
