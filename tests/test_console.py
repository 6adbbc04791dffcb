"""What a reporter writes: to a pipe, to a terminal, as JSON lines, and while following a file."""

from __future__ import annotations

import io
import json
import os
import pty
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table

from tapray import console
from tapray.console import Reporter


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def wait_for(path: Path, text: str) -> None:
    """Until ``text`` is in the file, at most 5 s."""
    deadline = time.monotonic() + 5
    while text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.02)


def test_piped_lines_are_plain_and_whole() -> None:
    stream = io.StringIO()
    reporter = Reporter(stream=stream)
    reporter.stage("pretrain")
    reporter.say("crops [train]", n=12, share=0.123456, path="a" * 150)
    reporter.warn("little ground")
    assert stream.getvalue().splitlines() == [
        "== pretrain",
        f"crops [train] n=12 share=0.1235 path={'a' * 150}",
        "warning: little ground",
    ]


def test_piped_task_prints_once_when_quick() -> None:
    stream = io.StringIO()
    with Reporter(stream=stream).task("pretrain", 1000, "step") as task:
        for _ in range(1000):
            task.advance(loss=0.6123456, arrow=0.75)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("pretrain: done 1000/1000 step in 0:00:0")
    assert line.endswith("step/s, loss=0.6123 arrow=0.75")


def test_piped_task_is_rate_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert console.EVERY_S == 10
    monkeypatch.setattr(console, "EVERY_S", 0.1)
    stream = io.StringIO()
    with Reporter(stream=stream).task("study", 100, "trial") as task:
        for _ in range(50):
            time.sleep(0.01)
            task.advance()
    lines = stream.getvalue().splitlines()
    assert 3 <= len(lines) <= 8
    assert all(" ETA 0:00:0" in line and " trial/s" in line for line in lines[:-1])
    assert "done 50/100 trial" in lines[-1]


def test_failed_task_says_where_it_stopped() -> None:
    stream = io.StringIO()

    def fail() -> None:
        with Reporter(stream=stream).task("features", 10, "crop") as task:
            task.update(4)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert "features: stopped at 4/10 crop" in stream.getvalue()


def test_rate_counts_from_where_a_continued_task_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_POLL_S", 0.0)
    with Reporter("quiet").task("pretrain", 1000, "step") as task:
        task.update(900)
        assert task.rate is None
        time.sleep(0.1)
        task.update(910)
        assert task.rate is not None
        assert 40 < task.rate <= 100  # 10 steps in a little over 0.1 s; not 910 of them
        assert task.eta == pytest.approx(90 / task.rate, rel=0.1)
        task.update(100)  # back to a checkpoint
        assert task.rate is None
        time.sleep(0.1)
        task.update(105)
        assert task.rate is not None
        assert 20 < task.rate <= 50


def test_json_lines() -> None:
    stream = io.StringIO()
    reporter = Reporter("json", stream)
    reporter.stage("study")
    reporter.say("cell", event="ours", loss=float("nan"), n=np.int64(3), path=Path("a/b"))
    reporter.warn("two\nlines")
    with reporter.task("heads", 2, "trial") as task:
        task.advance(2, ap=np.float64(0.5), loss=float("inf"))
    table = Table("init", "ap", title="Result")
    table.add_row("tap", "0.91")
    table.add_row("random", "0.40")
    reporter.table(table)
    stage, say, warn, progress, shown = records(stream)
    assert (stage["event"], stage["title"]) == ("stage", "study")
    assert (say["message"], say["loss"], say["n"], say["path"]) == ("cell", None, 3, "a/b")
    assert warn["message"] == "two\nlines"
    assert (progress["event"], progress["state"]) == ("progress", "done")
    assert (progress["done"], progress["total"], progress["unit"]) == (2, 2, "trial")
    assert progress["metrics"] == {"ap": 0.5, "loss": None}
    assert (shown["title"], shown["columns"]) == ("Result", ["init", "ap"])
    assert shown["rows"] == [["tap", "0.91"], ["random", "0.40"]]


def test_quiet_only_warns_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("quiet")
    reporter.stage("a")
    reporter.say("b")
    reporter.table(Table("c"))
    with reporter.task("d", 1, "step") as task:
        task.advance()
    reporter.warn("e")
    assert capsys.readouterr() == ("", "warning: e\n")


def test_piped_table_is_not_cut() -> None:
    stream = io.StringIO()
    table = Table(*(f"column_{i:02d}" for i in range(14)))
    table.add_row(*["1.0"] * 14)
    Reporter(stream=stream).table(table)
    assert all(f"column_{i:02d}" in stream.getvalue() for i in range(14))


def test_terminal_draws_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    read, write = pty.openpty()
    received = bytearray()

    def drain() -> None:
        while chunk := os.read(read, 65536):
            received.extend(chunk)
            if b"after" in received:
                return

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    with os.fdopen(write, "w") as terminal:
        reporter = Reporter(stream=terminal)
        with reporter.task("pretrain", 10, "step") as outer, reporter.task("validate", 4, "batch") as inner:
            inner.advance(4, loss=0.5)
            outer.advance(3)
            reporter.say("in between")
        reporter.say("after")
        terminal.flush()
        thread.join(5)
    text = received.decode()
    assert "━" in text
    assert "done 4/4 batch" in text
    assert "loss=0.5" in text
    assert "done 3/10 step" in text
    assert "in between" in text
    os.close(read)


def test_follow_shows_the_newest_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "EVERY_S", 0.0)
    path, log, seen = tmp_path / "steps.jsonl", tmp_path / "log", list[dict[str, object]]()
    with log.open("w") as stream, Reporter("json", stream).follow(path, "pretrain", 100, "step", seen.append):
        time.sleep(0.05)  # the file is not there yet
        path.write_text(
            '{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6, "phase": "warm"}\n{"step": 3, "lo'
        )
        wait_for(log, '"done": 2,')
        assert '"done": 3,' not in log.read_text()
        with path.open("a") as file:
            file.write('ss": 0.5}\nnot json\n[4]\n{"other": 5}\n')
        wait_for(log, '"done": 3,')
        path.write_text('{"step": 1, "loss": 0.9}\n')  # begun anew
        wait_for(log, '"loss": 0.9')
        with path.open("a") as file:
            file.write('{"step": 9, "loss": 0.1}')  # the very last line lacks its end
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["done"] for line in lines] == [2, 3, 1, 9, 9]
    assert lines[0]["metrics"] == {"loss": 0.6}
    assert [record["step"] for record in seen] == [1, 2, 3, 1, 9]
    assert seen[1] == {"step": 2, "loss": 0.6, "phase": "warm"}
    assert (lines[-1]["state"], lines[-1]["metrics"]) == ("done", {"loss": 0.1})


def test_follow_stops_promptly_and_without_a_file(tmp_path: Path) -> None:
    stream = io.StringIO()
    begun = time.monotonic()
    with Reporter(stream=stream).follow(tmp_path / "none.jsonl", "pretrain", 5, "step"):
        pass
    assert time.monotonic() - begun < 1
    assert "done 0/5 step" in stream.getvalue()
    assert not any(thread.name.endswith("(_tail)") for thread in threading.enumerate())
