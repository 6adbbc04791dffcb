"""How long work shows itself: bars on a terminal, plain lines in a pipe, JSON lines on a cluster."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Mode = Literal["rich", "quiet", "json"]
OnRecord = Callable[[dict[str, Any]], None]
EVERY_S = 10.0  # seconds between two lines of a task where no bar can be drawn
_POLL_S = 0.2  # seconds between two looks at a followed file
_WINDOW_S = 30.0  # the rate is that of the last so many seconds
_PIPE_WIDTH = 200  # columns for tables that are not shown on a terminal


class Task:
    """One piece of work with a known total; made by ``Reporter.task``."""

    def __init__(self, title: str, total: int, unit: str, show: Callable[[Task], None]) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done: float = 0
        self.metrics: dict[str, float] = {}
        self.started = self.shown_at = time.monotonic()  # shown_at: when a line was printed last
        self.bar: TaskID | None = None
        self._show = show
        self._samples: deque[tuple[float, float]] = deque()  # (seconds, done), oldest first

    def advance(self, n: float = 1, /, **metrics: float) -> None:
        """``n`` more units are done."""
        if not self._samples:
            self._samples.append((self.started, 0))
        self.record(self.done + n, metrics)

    def update(self, done: float, /, **metrics: float) -> None:
        """``done`` units are done in all; the first call is where a continued task starts from."""
        self.record(done, metrics)

    def record(self, done: float, metrics: Mapping[str, float]) -> None:
        """As ``update``, for metrics of any name."""
        now = time.monotonic()
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # the work went back to a checkpoint
        if not self._samples or now - self._samples[-1][0] > _POLL_S:
            self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW_S:
            self._samples.popleft()
        self.done = done
        self.metrics |= metrics
        self._show(self)

    @property
    def rate(self) -> float | None:
        """Units per second lately; None while unknown."""
        since, before = self._samples[0] if self._samples else (0, self.done)
        seconds = time.monotonic() - since
        return (self.done - before) / seconds if seconds > 0 and self.done > before else None

    @property
    def eta(self) -> float | None:
        """Seconds to go at the present rate; None while unknown."""
        rate = self.rate
        return max(self.total - self.done, 0) / rate if rate else None

    def state(self, end: str = "") -> str:
        """For example ``40/100 step, 2.5 step/s, ETA 0:00:24, loss=0.61``; ``end``: done or stopped."""
        count = f"{_number(self.done)}/{self.total} {self.unit}"
        parts = [f"{end} {count} in {_duration(time.monotonic() - self.started)}" if end else count]
        if (rate := self.rate) is not None:
            parts.append(f"{_number(rate)} {self.unit}/s")
        if not end and (eta := self.eta) is not None:
            parts.append(f"ETA {_duration(eta)}")
        metrics = " ".join(f"{key}={_number(value)}" for key, value in self.metrics.items())
        return ", ".join([*parts, metrics] if metrics else parts)


class Reporter:
    """Shows stages, messages, progress and tables; may be called from several threads.

    ``rich`` draws bars on a terminal and, piped, prints a line per task at most every 10 s and at
    its end; ``json`` writes objects ``{"time", "event", ...}`` as often; ``quiet`` only warns.
    """

    def __init__(self, mode: Mode = "rich", stream: TextIO | None = None) -> None:
        self.mode = mode
        self._stream = stream or sys.stdout
        self._console = Console(file=self._stream, highlight=False)
        if not self._console.is_terminal:
            self._console.width = _PIPE_WIDTH
        self._lock = threading.RLock()
        self._bars: Progress | None = None  # there while tasks are open on a terminal
        self._tasks: list[Task] = []  # open ones

    def stage(self, title: str) -> None:
        """A heading."""
        self._tell("stage", Text(f"== {title}", style="bold cyan"), {"title": title})

    def say(self, message: str, /, **fields: object) -> None:
        """One line of information; the fields follow as ``key=value``."""
        pairs = "".join(f" {key}={_number(value)}" for key, value in fields.items())
        self._tell("say", Text(message + pairs), {"message": message, **fields})

    def warn(self, message: str) -> None:
        """One line that every mode shows."""
        if self.mode == "quiet":
            print(f"warning: {message}", file=sys.stderr, flush=True)
        self._tell("warn", Text(f"warning: {message}", style="yellow"), {"message": message})

    def echo(self, line: str) -> None:
        """A line that another program has written."""
        self._tell("log", Text(line), {"line": line})

    def table(self, rich_table: Table) -> None:
        """A table; in JSON its title, columns and rows of text."""
        headers = [str(column.header) for column in rich_table.columns]
        columns = (column.cells for column in rich_table.columns)
        rows = zip(*([Text.from_markup(str(cell)).plain for cell in cells] for cells in columns), strict=True)
        record = {"title": str(rich_table.title or ""), "columns": headers, "rows": list(rows)}
        self._tell("table", rich_table, record)

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Task]:
        """Progress to ``advance`` or ``update``; ``unit`` is a word such as "step"."""
        task = Task(title, total, unit, self._progress)
        self._open(task)
        end = "stopped at"
        try:
            yield task
            end = "done"
        finally:
            self._close(task, end)

    @contextmanager
    def follow(
        self, path: Path, title: str, total: int, unit: str, on_record: OnRecord = lambda _: None
    ) -> Iterator[None]:
        """Shows the newest record of a JSON-lines file that another process appends to.

        A record's ``unit`` is the number of units done; its other numbers are shown as metrics. The file
        need not exist yet and its last line may be half-written. ``on_record`` is called with each record,
        from a thread of its own.
        """
        stop = threading.Event()
        with self.task(title, total, unit) as task:
            thread = threading.Thread(target=_tail, args=(path, task, on_record, stop), daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    def _open(self, task: Task) -> None:
        with self._lock:
            self._tasks.append(task)
            if self.mode == "rich" and self._console.is_terminal:
                if self._bars is None:
                    self._bars = _bars(self._console)
                    self._bars.start()
                task.bar = self._bars.add_task(task.title, total=task.total, state=task.state())

    def _progress(self, task: Task, end: str = "") -> None:
        with self._lock:
            if self._bars is not None and task.bar is not None:
                self._bars.update(task.bar, completed=task.done, state=task.state(end))
                return
            now = time.monotonic()
            if not end and now - task.shown_at < EVERY_S:
                return
            task.shown_at = now
            record: dict[str, object] = {"task": task.title, "state": end or "running"}
            record |= {"done": task.done, "total": task.total, "unit": task.unit, "rate": task.rate}
            record |= {"eta_s": task.eta, "elapsed_s": round(now - task.started, 3)}
            record["metrics"] = {key: _json_value(value) for key, value in task.metrics.items()}
            self._tell("progress", Text(f"{task.title}: {task.state(end)}"), record)

    def _close(self, task: Task, end: str) -> None:
        with self._lock:
            self._progress(task, end)
            self._tasks.remove(task)
            if self._bars is not None and not self._tasks:
                self._bars.stop()
                self._bars = None

    def _tell(self, event: str, shown: Text | Table, fields: Mapping[str, object]) -> None:
        with self._lock:
            if self.mode == "rich":
                # Text never wraps, so that a line stays one line in a log; a table fits the width.
                self._console.print(shown, soft_wrap=isinstance(shown, Text))
            elif self.mode == "json":
                stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
                values = {key: _json_value(value) for key, value in fields.items()}
                record = {"time": stamp, "event": event, **values}
                print(json.dumps(record, default=str), file=self._stream, flush=True)


def _bars(console: Console) -> Progress:
    title, state = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[state]}"))
    return Progress(title, BarColumn(bar_width=20), state, TimeElapsedColumn(), console=console)


def _tail(path: Path, task: Task, on_record: OnRecord, stop: threading.Event) -> None:
    """Feeds ``task`` with the newest record until ``stop``, then looks a last time."""
    offset, rest, last = 0, b"", False
    while not last:
        last, lines = stop.wait(_POLL_S), list[bytes]()
        with suppress(OSError), path.open("rb") as file:  # not there yet, or a file server hiccups
            if file.seek(0, 2) < offset:
                offset, rest = 0, b""  # replaced by a shorter file
            file.seek(offset)
            new = file.read()
            offset += len(new)
            *lines, rest = (rest + new).split(b"\n")
        found = list(_records([*lines, rest] if last else lines, task.unit))
        if found:
            numbers = {key: value for key, value in found[-1].items() if isinstance(value, int | float)}
            task.record(numbers.pop(task.unit), numbers)
        for record in found:
            on_record(record)


def _records(lines: list[bytes], field: str) -> Iterator[dict[str, Any]]:
    """Those of the lines that are records with a number in ``field``."""
    for line in lines:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get(field), int | float):
                yield record


def _number(value: object) -> str:
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{value:.4g}" if abs(float(value)) < 1000 else f"{value:.0f}"
    return str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _json_value(value: object) -> object:
    """Numbers as JSON knows them: array scalars as Python's, non-finite ones as null."""
    item = getattr(value, "item", None)
    value = item() if callable(item) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
