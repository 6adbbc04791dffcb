"""The command line: help of every command, what it imports, and faults of the line itself."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tapray import cli
from tapray.model.tap import TapNet, initialise
from tapray.model.weights import load_tap, save_tap, weights_digest

COMMANDS = [
    *("calibrate", "convert", "demo", "errors", "explain", "features", "inspect", "predict", "pretrain"),
    *("report", "run", "shard", "simulate", "study", "submit", "ui"),
]


def tapray(*words: object) -> int:
    """Runs the entry point in this process; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tapray", *map(str, words)])
        try:
            cli.main()
        except SystemExit as leave:
            return int(leave.code or 0)
    return 0


def test_commands_are_those_tested() -> None:
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
    assert sorted(names) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tapray(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"tapray {command}" in text
    assert "--help" in text


def test_help_imports_nothing_heavy() -> None:
    code = """if True:
        import sys
        from tapray.cli import main
        sys.argv = ["tapray", "--help"]
        main()
        heavy = {"torch", "ray", "mlflow", "numpy", "pandas", "scipy"} & set(sys.modules)
        print("HEAVY", sorted(heavy))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["walk"], "walk"),
        (["run"], "study"),
        (["run", "a.yaml", "--fast"], "--fast"),
        (["simulate", "new", "--frames", "many"], "--frames"),
        (["run", "a.yaml", "--progress", "loud"], "a.yaml"),
    ],
)
def test_faults_of_the_line_are_one_line(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tapray(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]


def test_simulate_then_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tapray("simulate", tmp_path / "sim", "--movies", 1, "--frames", 3) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "sim" / "field_1.tif"
    assert tapray("inspect", path, "--out", tmp_path) == 0
    text = capsys.readouterr().out
    assert "256 x 256 px" in text
    assert "uint16" in text


def test_interruption_has_its_own_exit_status(tmp_path: Path) -> None:
    """Ctrl-C in a terminal: one line, status 130, and no half-written folder."""
    argv = [sys.executable, "-u", "-m", "tapray", "simulate", str(tmp_path / "sim"), "--frames", "100000"]
    running = subprocess.Popen(
        argv,
        cwd=Path(__file__).parents[1],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not list(tmp_path.glob(".sim.*")):  # the simulator is at work
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
    interrupted = "tapray: interrupted; run the same command again to continue\n"
    assert (running.returncode, stderr) == (130, interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_bare_command_shows_the_help_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert tapray() == 2
    shown = capsys.readouterr()
    assert "Usage: " in shown.out + shown.err
    assert "tapray: \n" not in shown.err


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("null", r"no mlflow\.db here"),
        ("https://host/mlflow", "https://host/mlflow: is a server"),
        ("postgresql://***@host/db", "without its password"),
    ],
)
def test_ui_opens_the_store_of_the_run(
    uri: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(
        f"{{simulate: {{}}, tracking: {{uri: '{uri}'}}}}".replace("'null'", "null")
    )
    assert tapray("ui", tmp_path) == 2
    assert re.search(found, capsys.readouterr().err)


def test_convert_there_and_back(tmp_path: Path) -> None:
    net = TapNet("unet-32")
    initialise(net, torch.Generator().manual_seed(0))
    save_tap(net, tmp_path / "ours")
    assert tapray("convert", tmp_path / "ours", tmp_path / "theirs", "--to", "tarrow") == 0
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == [
        "model_kwargs.yaml",
        "model_state.pt",
    ]
    assert tapray("convert", tmp_path / "theirs", tmp_path / "back") == 0
    assert weights_digest(load_tap(tmp_path / "back")) == weights_digest(net)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("absent", "new"), "absent: not a readable TAP model"),
        (("ours", "ours"), "ours: is there already; name another"),
        (("ours", "new", "--to", "keras"), "--to: unknown form 'keras'; use one of tapray, tarrow, onnx"),
        (
            ("ours", "new", "--to", "tarrow"),
            "knows no preset 'unet-8s2'; pretrain with pretrain.preset: unet-32",
        ),
    ],
)
def test_faults_of_convert(
    words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = TapNet("unet-8s2")
    initialise(net, torch.Generator().manual_seed(0))
    save_tap(net, tmp_path / "ours")
    paths = [str(tmp_path / word) for word in words[:2]]
    assert tapray("convert", *paths, *words[2:]) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "new").exists()
