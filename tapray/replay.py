"""Shows what a job on a cluster tells as JSON lines in the way a local run shows it."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import Any

from rich.markup import escape
from rich.table import Table

from tapray.console import Reporter, Task

_FAULT = "tapray: "  # begins the line that a job ends with if something was at fault


_EVENTS = ("stage", "say", "warn", "table", "progress")


class _Stopped(Exception):  # noqa: N818
    pass


class Replay:
    """Feeds a reporter from the lines of a log; what is no record of ours is printed as it is.

    fault: what the job says was at fault, "" for nothing; started: whether a stage has begun.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.fault, self.started = "", False
        self._reporter = reporter
        self._tasks: dict[str, tuple[Task, ExitStack]] = {}

    def line(self, text: str) -> None:
        """The next line of the log."""
        record = _record(text)
        if record is not None:
            shown = {"stage": self._stage, "say": self._say, "warn": self._warn, "table": self._table}
            shown.get(record.pop("event"), self._progress)(record)
        elif text.startswith(_FAULT):
            self.fault = text.removeprefix(_FAULT).strip()
        elif text.strip():
            self._reporter.echo(text)

    def close(self) -> None:
        """Ends the bars of work that was not told to be done."""
        for name in [*self._tasks]:
            self._end(name, done=False)

    def _end(self, name: str, done: bool) -> None:
        _, stack = self._tasks.pop(name)
        with suppress(_Stopped), stack:
            if not done:
                raise _Stopped

    def _stage(self, record: dict[str, Any]) -> None:
        self.close()
        self.started = True
        self._reporter.stage(record["title"])

    def _say(self, record: dict[str, Any]) -> None:
        fields = {key: value for key, value in record.items() if key not in ("time", "message")}
        self._reporter.say(record["message"], **fields)

    def _warn(self, record: dict[str, Any]) -> None:
        self._reporter.warn(record["message"])

    def _table(self, record: dict[str, Any]) -> None:
        table = Table(*record["columns"], title=record["title"] or None)
        for row in record["rows"]:
            table.add_row(*map(escape, row))
        self._reporter.table(table)

    def _progress(self, record: dict[str, Any]) -> None:
        name = record["task"]
        if name not in self._tasks:
            stack = ExitStack()
            task = stack.enter_context(self._reporter.task(name, record["total"], record["unit"]))
            self._tasks[name] = task, stack
        self._tasks[name][0].record(record["done"], record["metrics"])
        if record["state"] != "running":
            self._end(name, done=record["state"] == "done")


def _record(text: str) -> dict[str, Any] | None:
    """What a reporter has written; None for any other line."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("event") in _EVENTS else None
