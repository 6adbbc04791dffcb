"""Pretraining on workers: what they see, and that losing them costs nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tapray.config import MovieEntry, Role
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.distributed.data import write_frames
from tapray.distributed.train import pretrain
from tapray.errors import UserError
from tapray.model.weights import load_tap
from tapray.pretrain.evaluate import evaluated
from tapray.pretrain.frames import region_folder
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tiny_job: Path) -> Inputs:
    listed = json.loads((tiny_job / "simulate" / "movies.json").read_text())
    return Inputs(tiny_config(tiny_job), [MovieEntry.model_validate(item) for item in listed])


@pytest.fixture(scope="module")
def frames(inputs: Inputs, tiny_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoded frames of all splits, as the pretraining stage makes them."""
    folder = tmp_path_factory.mktemp("frames")
    samplers = {region: evaluated(inputs.config) for role in Role for region in inputs.regions_of(role)}
    shards = tiny_job / "shard"
    write_frames(inputs.movies, samplers, inputs.config, shards, folder, Reporter("quiet"))
    return folder


def test_the_frames_that_workers_map_are_those_of_the_movies(inputs: Inputs, frames: Path) -> None:
    for region in inputs.regions_of(Role.TRAIN):
        own = np.load(region_folder(frames, region) / "frames.npy")
        np.testing.assert_array_equal(own, inputs.movies[region.movie].read(region.start, region.stop))


def once(ready: Callable[[], bool], act: Callable[[], None]) -> Callable[[], None]:
    """Acts as soon as `ready`, in a thread; the returned function ends it and tells whether it had to."""
    stop, acted = threading.Event(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            if ready():
                act()
                acted.set()
                return

    thread = threading.Thread(target=watch)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join()
        assert acted.is_set(), "training ended before it could be disturbed"

    return end


def training_workers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.name().startswith("ray::RayTrain") or "RayTrainWorker" in " ".join(child.cmdline())
    ]


def test_interrupted_and_with_a_worker_killed(
    inputs: Inputs, tiny_job: Path, frames: Path, tmp_path: Path
) -> None:
    """Ctrl-C in the second epoch, a worker killed in the third: the net is that of the undisturbed job."""
    regions = {role: inputs.regions_of(role) for role in (Role.TRAIN, Role.VAL)}
    log, folder = tmp_path / "log.jsonl", tmp_path / "checkpoints"

    def saved(epoch: int) -> bool:
        return (folder / f"step_{20 * (epoch + 1):08d}.safetensors").exists()

    def run() -> dict[str, torch.Tensor]:
        where = (frames, folder, log, Reporter("quiet"))
        return pretrain(inputs.config, regions, *where).state_dict()

    end = once(lambda: saved(0), lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run()
    end()
    # Killed in the third epoch, at its first record; the job may have got there, or to its end, by then.
    (folder / "step_00000060.safetensors").unlink(missing_ok=True)
    first = log.read_text().splitlines()[:2]  # two records an epoch
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:4]))
    end = once(lambda: len(log.read_text().splitlines()) >= 5, lambda: training_workers()[-1].kill())
    weights = run()
    end()
    lines = log.read_text().splitlines()
    assert lines[:2] == first  # with its times: the first epoch was not trained again
    steps = [int(line.split('"step": ')[1].split(",")[0]) for line in lines]
    assert steps == [10, 20, 30, 40, 50, 60]
    undisturbed = load_tap(tiny_job / "pretrain" / "model").state_dict()
    assert weights.keys() == undisturbed.keys()
    for name, value in weights.items():
        assert torch.equal(value, undisturbed[name]), name
    for name, value in run().items():  # and a finished one is not trained again
        assert torch.equal(value, weights[name])
    assert log.read_text().splitlines() == lines


def test_workers_may_die_often_but_not_without_getting_on(
    inputs: Inputs, tiny_job: Path, frames: Path, tmp_path: Path
) -> None:
    """No restart is allowed in a fit of Ray's: what lets it go on are checkpoints between the deaths."""
    pretraining = {**inputs.config.pretrain.model_dump(), "checkpoint_every": 10}
    config = tiny_config(tiny_job, pretrain=pretraining, ray={"max_failures": 0, "train_workers": 1})
    regions = {role: inputs.regions_of(role) for role in (Role.TRAIN, Role.VAL)}
    log, folder = tmp_path / "log.jsonl", tmp_path / "checkpoints"

    def run() -> None:
        pretrain(config, regions, frames, folder, log, Reporter("quiet"))

    def killed() -> None:
        training_workers()[-1].kill()

    end = once(log.exists, killed)  # it is made before the first step
    with pytest.raises(UserError, match="workers died again and again, without a new checkpoint"):
        run()
    end()
    ends = [once((folder / f"step_{step:08d}.safetensors").exists, killed) for step in (10, 30)]
    run()
    for end in ends:
        end()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [10, 20, 30, 40, 50, 60]


def test_more_workers_than_cpus_is_one_line(inputs: Inputs, tiny_job: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_job, ray={"train_workers": 3})
    with pytest.raises(
        UserError, match=r"ray\.train_workers: 3 workers need as many CPUs, the cluster has 2"
    ):
        pretrain(config, {}, tmp_path, tmp_path, tmp_path / "log", Reporter("quiet"))
