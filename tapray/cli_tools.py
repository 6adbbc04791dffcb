"""The commands beside the job: on movies, on models, and the comparison page."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tapray.errors import UserError
from tapray.options import Progress, reporter

if TYPE_CHECKING:
    from tapray.entries import Reading
    from tapray.model.tap import TapNet

Axes = Annotated[str | None, typer.Option(help="Axes of the file, a letter each, for example TCYX.")]
Channel = Annotated[
    list[int] | None, typer.Option(help="Channel, of several: 0, 1... (repeatable: seen together).")
]
Plane = Annotated[int | None, typer.Option(help="Plane of a z-stack: 0, 1...")]


def simulate(
    folder: Annotated[Path, typer.Argument(help="New folder for the movies and their truth.")],
    movies: Annotated[int, typer.Option(help="Number of fields of view.")] = 4,
    frames: Annotated[int, typer.Option(help="Frames of each movie.")] = 60,
    seed: Annotated[int, typer.Option(help="Same seed, same movies.")] = 0,
) -> None:
    """Simulated movies of dividing and dying nuclei, with truth."""
    from pydantic import ValidationError

    from tapray.config import SimulateConfig
    from tapray.configfile import one_line
    from tapray.data.simulate import write_simulation

    if folder.exists():
        raise UserError("exists already", where=folder, todo="name a new folder")
    try:
        config = SimulateConfig(n_movies=movies, frames=frames, seed=seed)
    except ValidationError as error:
        raise UserError(one_line(error)) from None
    try:
        entries = write_simulation(config, folder)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=folder) from None
    for entry in entries:
        print(entry.path)


def inspect(
    path: Annotated[str, typer.Argument(help="A movie, a folder of frames, or a study or collection.")],
    out: Annotated[Path, typer.Option(help="Folder of the picture, NAME_inspect.png.")] = Path(),
    axes: Axes = None,
    channel: Channel = None,
    plane: Plane = None,
) -> None:
    """What is understood of movies: axes, intensities, events, what is unknown; with a picture."""
    from tapray.inspect import inspect as run_inspection

    run_inspection(_located(path), _reading(axes, channel, plane), out, reporter("rich"))


def predict(
    model: Annotated[Path, typer.Argument(help="Model folder, for example runs/demo/model.")],
    movie: Annotated[str, typer.Argument(help="A movie or a folder of frames.")],
    out: Annotated[Path, typer.Option(help="Where the table and the probability movie go.")] = Path(
        "predictions"
    ),
    stride: Annotated[
        int | None, typer.Option(min=1, help="Pixels between places; default a quarter crop.")
    ] = None,
    axes: Axes = None,
    channel: Channel = None,
    plane: Plane = None,
    progress: Progress = "rich",
) -> None:
    """Find events in a movie: calibrated event table (CSV) and probability movie (TIFF)."""
    from tapray.data.movies import open_movie
    from tapray.detector import load_model
    from tapray.predict import predict as run_prediction

    opened = open_movie(_located(movie), reading=_reading(axes, channel, plane))
    run_prediction(load_model(model), opened, out, reporter(progress), stride)


def convert(
    model: Annotated[Path, typer.Argument(help="Model folder: of pretraining, of predict, or of tarrow.")],
    out: Annotated[Path, typer.Argument(help="What to write: a folder, for onnx and bioimage a file.")],
    to: Annotated[
        str, typer.Option(help="tapray, tarrow, onnx or bioimage (the dense features).")
    ] = "tapray",
) -> None:
    """A pretrained network from one form into another: tapray's, tarrow's, ONNX, bioimage.io."""
    from tapray.model.bioimage import write_bioimage
    from tapray.model.onnx import write_onnx
    from tapray.model.tarrow import read_net, write_tarrow
    from tapray.model.weights import intensity_of, save_tap

    writers: dict[str, Callable[[TapNet, Path], None]] = {
        "tapray": lambda net, path: save_tap(net, path, intensity=intensity_of(model)),
        "tarrow": write_tarrow,
        "onnx": write_onnx,
        "bioimage": lambda net, path: write_bioimage(net, path, intensity_of(model)),
    }
    if to not in writers:
        raise UserError(f"unknown form '{to}'", where="--to", todo=f"use one of {', '.join(writers)}")
    net = read_net(model)
    if out.exists():
        raise UserError("is there already", where=out, todo="name another")
    writers[to](net, out)


def _located(text: str) -> Path:
    from tapray.locations import location

    try:
        return location(text)
    except ValueError as error:
        raise UserError(str(error)) from None


def _reading(axes: str | None, channel: list[int] | None, plane: int | None) -> Reading:
    from pydantic import ValidationError

    from tapray.configfile import one_line
    from tapray.entries import Reading

    try:
        several = tuple(channel or ())
        one = several[0] if len(several) == 1 else several or None
        return Reading(axes=axes, channel=one, plane=plane)
    except ValidationError as error:
        raise UserError(one_line(error)) from None


def ui(
    runs: Annotated[Path, typer.Argument(help="A run folder, or the folder of runs.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """MLflow's comparison page on the runs' store."""
    from tapray.comparison import page
    from tapray.stores import experiment_id, serve

    store, experiment = _store_of(runs)
    command = serve(store, port)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", port))
        except OSError as error:
            fault = f"cannot be opened ({error.strerror})"
            raise UserError(fault, where=f"--port {port}", todo="give another port") from None
    print(page(f"http://127.0.0.1:{port}", experiment_id(store, experiment)), flush=True)
    os.execvp(command[0], command)


def _store_of(runs: Path) -> tuple[str, str]:
    """Address and experiment of the store that a run folder, or a folder of them, was logged to."""
    from tapray.config import TrackingConfig
    from tapray.configfile import load_config

    settings, tracking = runs / "config.yaml", TrackingConfig()
    if settings.is_file():
        tracking = load_config(settings).tracking
        if tracking.uri and "***@" in tracking.uri:
            todo = "open it with: mlflow ui --backend-store-uri ADDRESS"
            raise UserError("the store's address is kept without its password", where=settings, todo=todo)
    if tracking.uri:
        return tracking.uri, tracking.experiment
    store = next((p for p in (runs / "mlflow.db", runs.parent / "mlflow.db") if p.is_file()), None)
    if store is None:
        raise UserError("no mlflow.db here", where=runs, todo="give the folder of a finished run")
    return f"sqlite:///{store.resolve()}", tracking.experiment
