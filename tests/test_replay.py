"""A job's JSON lines, shown as a local run shows itself."""

from __future__ import annotations

import io

from rich.table import Table

from tapray.console import Reporter
from tapray.replay import Replay


def told(mode: str) -> str:
    """What a reporter writes of some work."""
    stream = io.StringIO()
    reporter = Reporter(mode, stream)  # type: ignore[arg-type]
    reporter.stage("study")
    with reporter.task("runs", 4, "run") as task:
        task.advance(4, ap=0.9)
    reporter.say("done", folder="runs/a")
    reporter.warn("few events")
    table = Table("init", "AP", title="results")
    table.add_row("tap", "0.9")
    reporter.table(table)
    return stream.getvalue()


def shown(lines: str) -> tuple[str, str]:
    stream = io.StringIO()
    replay = Replay(Reporter("rich", stream))
    for line in lines.splitlines():
        replay.line(line)
    replay.close()
    return stream.getvalue(), replay.fault


def test_it_looks_like_a_local_run() -> None:
    text, fault = shown(told("json"))
    without_rates = [line.split(" in ")[0] for line in text.splitlines()]
    assert without_rates == [line.split(" in ")[0] for line in told("rich").splitlines()]
    assert fault == ""


def test_other_lines_pass_and_a_fault_is_kept() -> None:
    text, fault = shown('INFO of Ray\n\n{"no": "event"}\n[1]\ntapray: a.tif: is damaged; look at it\n')
    assert text.splitlines() == ["INFO of Ray", '{"no": "event"}', "[1]"]
    assert fault == "a.tif: is damaged; look at it"


def test_work_that_is_not_told_to_be_done_is_stopped() -> None:
    lines = [line for line in told("json").splitlines() if '"done"' not in line or '"progress"' not in line]
    running = '{"event": "progress", "task": "runs", "state": "running", "done": 1, "total": 4, '
    running += '"unit": "run", "metrics": {}}'
    text, _ = shown("\n".join([running, *lines]))
    assert "runs: stopped at 1/4 run" in text
