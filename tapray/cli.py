"""The command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tapray.atomic import FULL_DISK
from tapray.cli_jobs import jobs, submit
from tapray.cli_tools import convert, inspect, predict, simulate, ui
from tapray.errors import UserError
from tapray.options import Force, Out, Progress, Study, reporter

app = typer.Typer(
    help="Time arrow prediction for live-cell movies: find rare events from a few dozen labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
_USERS_FAULTS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, *FULL_DISK)


def main() -> None:
    """Entry point: a user's fault is one line and exit status 2, an interruption 130."""
    try:
        status = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except typer.TyperException as error:  # of the command line itself
        if not (message := error.format_message()):  # bare `tapray` has shown the help
            sys.exit(2)
        _fail(message)
    except OSError as error:
        if error.errno not in _USERS_FAULTS:
            raise
        _fail(f"{error.filename or 'a file'}: {error.strerror}")
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    if status == _INTERRUPTED:  # typer turns Ctrl-C into this
        _fail("interrupted; run the same command again to continue", _INTERRUPTED)


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"tapray: {message}", file=sys.stderr)
    sys.exit(status)


def _job(study: Path, out: Path | None, force: list[str] | None, until: str, progress: str) -> list[Path]:
    """Runs every variant of a study; returns the run folders."""
    from tapray.configfile import load_variants
    from tapray.job import run_job

    variants, told = load_variants(study, out), reporter(progress)
    folders = []
    for name, config in variants.items():
        if name:
            told.say(f"variant {name}")
        folders.append(run_job(config, until=until, force=force or [], reporter=told))
    if until == "report" and len(variants) > 1:
        told.say(f"tables of all variants: {_compared(folders)}")
    return folders


def _compared(folders: list[Path]) -> Path:
    """Writes the tables of one or several run folders; returns where they lie."""
    from tapray.context import results_of
    from tapray.report.variants import write_comparison
    from tapray.runfolder import RunFolder

    found = [results_of(RunFolder(folder)) for folder in folders] if len(folders) > 1 else []
    return write_comparison(folders, found)


@app.command()
def run(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """The whole job, stage after stage; continues where it was interrupted."""
    _job(study, out, force, "report", progress)


@app.command()
def shard(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """Movies into labelled crop pairs, with splits and leakage audit."""
    _job(study, out, force, "shard", progress)


@app.command()
def pretrain(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """Time arrow pretraining, after sharding."""
    _job(study, out, force, "pretrain", progress)


@app.command()
def features(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """Dense features of the labelled crops, after pretraining."""
    _job(study, out, force, "features", progress)


@app.command("study")
def study_(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """Search and final runs over label budgets, heads and initialisations."""
    _job(study, out, force, "study", progress)


@app.command()
def calibrate(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """How far probabilities can be relied on, before and after calibration of several kinds."""
    _job(study, out, force, "calibrate", progress)


@app.command()
def errors(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """Where and when the event heads err, and a gallery of the most confident mistakes."""
    _job(study, out, force, "errors", progress)


@app.command()
def explain(study: Study, out: Out = None, force: Force = None, progress: Progress = "rich") -> None:
    """Where the pretrained net reads the order of frames, and how well that finds events."""
    _job(study, out, force, "explain", progress)


@app.command()
def report(
    study: Study,
    out: Out = None,
    force: Force = None,
    progress: Progress = "rich",
    tables: Annotated[bool, typer.Option("--tables", help="Write and print the published tables.")] = False,
) -> None:
    """Tables, figures and the model, after the study."""
    folders = _job(study, out, force, "report", progress)
    if tables:
        from tapray.report.variants import tables_folder

        if len(folders) == 1:  # those of variants are written anyhow
            _compared(folders)
        print((tables_folder(folders) / "published.md").read_text(), end="")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    force: Force = None,
    progress: Progress = "rich",
) -> None:
    """The whole job on simulated movies."""
    from importlib.resources import as_file, files

    with as_file(files("tapray") / "demo.yaml") as path:
        _job(path, out, force, "report", progress)


for command in (submit, simulate, inspect, predict, convert, ui):
    app.command()(command)
app.add_typer(jobs, name="jobs")
