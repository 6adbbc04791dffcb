"""The stage that pretrains: each net once, for all studies that want the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapray.atomic import atomic_folder, atomic_write
from tapray.config import JobConfig, Role
from tapray.context import Job
from tapray.crops.draw import Region
from tapray.runfolder import content_hash

if TYPE_CHECKING:
    from tapray.model.tap import TapNet

SEED_STEP = 1_000_003  # between the seeds of repeated pretrainings
RECIPE = 2  # of the code: another one where the same settings give another net, which the cache must not have
# Of the settings, to a net.
_INDIFFERENT = {"weights", "repeats", "checkpoint_every", "keep_checkpoints", "pictures_every"}
Regions = dict[Role, list[Region]]


def pretrain(job: Job) -> dict[str, Any]:
    """TAP pretraining; leaves model/, log.jsonl and the arrow accuracy on the test region.

    Repeats leave model-1/, log-1.jsonl and so on. What the cache has is copied from there.
    """
    from tapray.distributed.data import write_frames
    from tapray.pretrain.evaluate import evaluated

    config, inputs, target = job.config, job.inputs, job.folder.stage("pretrain")
    regions = {role: inputs.regions_of(role) for role in Role}
    target.mkdir(parents=True, exist_ok=True)
    repeats = [_repeated(config, number) for number in range(config.pretrain.repeats)]
    kept = [job.cache / "pretrained" / _identity(job, own, regions) for own in repeats]
    for folder in kept if "pretrain" in job.forced else ():
        shutil.rmtree(folder, ignore_errors=True)
    frames = target / "frames"  # for this stage only
    written = frames / "written"
    if not all((folder / "facts.json").exists() for folder in kept) and not written.exists():
        roles = Role if config.pretrain.weights is None else (Role.TEST,)
        samplers = {region: evaluated(config) for role in roles for region in regions[role]}
        write_frames(inputs.movies, samplers, config, job.shards, frames, job.reporter)
        atomic_write(written, "")
    nets = []
    for number, (own, folder) in enumerate(zip(repeats, kept, strict=True)):
        if (folder / "facts.json").exists():
            job.reporter.say(f"taken from the cache: {folder}")
        else:
            _make(job, own, number, regions, frames, folder)
        nets.append(_take(job, number, folder))
    for folder in (frames, target / "checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
    return {"nets": nets, "arrow_accuracy": sum(net["arrow_accuracy"] for net in nets) / len(nets)}


def _repeated(config: JobConfig, number: int) -> JobConfig:
    return config.model_copy(update={"seed": config.seed + number * SEED_STEP})


def _identity(job: Job, config: JobConfig, regions: Regions) -> str:
    """Hash of all that a pretrained net follows from."""
    movies = json.loads((job.shards / "manifest.json").read_text())["movies"]
    told = {name: [facts[key] for key in ("sha256", "axes", "picks")] for name, facts in movies.items()}
    weights = config.pretrain.weights
    given = None if weights is None else job.keys["pretrain"]  # which knows the state of the files
    settings = config.pretrain.model_dump(mode="json", exclude=_INDIFFERENT)
    drawn = [config.seed, config.crops.intensity, config.deltas, config.ray.workers]
    seen = {role.value: [vars(region) for region in own] for role, own in regions.items()}
    return content_hash([RECIPE, settings, given, drawn, told, seen])[:32]


def _make(job: Job, config: JobConfig, number: int, regions: Regions, frames: Path, kept: Path) -> None:
    """Pretrains a net, looks at its arrow accuracy on held-out frames, and puts all into the cache."""
    from tapray.model.tarrow import given_weights
    from tapray.model.weights import save_tap, weights_digest
    from tapray.pretrain.evaluate import arrow_accuracy

    settings, log = config.pretrain, _log(job, number)
    if settings.weights is None:
        net = _train(job, config, number, regions, frames, kept.name)
    else:
        net = given_weights(settings.weights, settings.preset, config.channels)
        atomic_write(log, "")  # nothing was learned here
    accuracy = arrow_accuracy(config, net, regions[Role.TEST], frames, job.reporter)
    own = accuracy[settings.sampler.value]
    facts = {"arrow_accuracy": own, "arrow_accuracies": accuracy, "weights_sha256": weights_digest(net)}
    told = {"deltas": config.deltas, "size": settings.size, "intensity": config.crops.intensity}
    with atomic_folder(kept) as beside:
        save_tap(net, beside / "model", **told, arrow_accuracy=accuracy)
        shutil.copy(log, beside / "log.jsonl")
        if (drawn := _pictures(job, number)).exists():  # not where epochs were too few, or the disk full
            shutil.copytree(drawn, beside / "attribution")
        (beside / "facts.json").write_text(json.dumps(facts))


def _take(job: Job, number: int, kept: Path) -> dict[str, Any]:
    """Copies a net from the cache to the run folder and logs it; returns its facts."""
    from tapray.model.encoders import repeat_folder
    from tapray.pretrain.evaluate import ARROW_FLOOR

    facts: dict[str, Any] = json.loads((kept / "facts.json").read_text())
    model, log = repeat_folder(job.model, number), _log(job, number)
    with atomic_folder(model) as beside:
        shutil.copytree(kept / "model", beside, dirs_exist_ok=True)
    atomic_write(log, (kept / "log.jsonl").read_text())
    if (kept / "attribution").exists():
        with atomic_folder(_pictures(job, number)) as beside:
            shutil.copytree(kept / "attribution", beside, dirs_exist_ok=True)
    for sampler, value in facts["arrow_accuracies"].items():
        job.reporter.say(f"arrow accuracy on held-out frames, crops drawn by {sampler}: {value:.3f}")
    if facts["arrow_accuracy"] < ARROW_FLOOR:
        job.reporter.warn(
            "the arrow accuracy has not left 0.5: the features are not trained; pretrain longer"
        )
    run_id = _run(job, number)
    job.tracker.metric_history(run_id, [json.loads(line) for line in log.read_text().splitlines()])
    accuracies = {f"test_arrow_{name}": value for name, value in facts["arrow_accuracies"].items()}
    job.tracker.metrics(run_id, accuracies)
    job.tracker.model(run_id, model)
    if (drawn := _pictures(job, number)).exists():
        job.tracker.artifact(run_id, drawn, "attribution")
    job.tracker.finish(run_id)
    return facts


def _run(job: Job, number: int) -> str:
    """The MLflow run of a pretraining."""
    run_id = job.child(f"pretrain{_suffix(number)}", {"stage": "pretrain"})
    job.tracker.params(run_id, job.config.pretrain.model_dump(mode="json"))
    return run_id


def _suffix(number: int) -> str:
    return f"-{number}" if number else ""


def _log(job: Job, number: int) -> Path:
    return job.folder.stage("pretrain") / f"log{_suffix(number)}.jsonl"


def _pictures(job: Job, number: int) -> Path:
    return job.folder.stage("pretrain") / f"attribution{_suffix(number)}"


def _train(job: Job, config: JobConfig, number: int, regions: Regions, frames: Path, identity: str) -> TapNet:
    """Trains, while records go to MLflow as they come; goes on from checkpoints of the same identity."""
    from tapray.distributed.train import pretrain as run
    from tapray.pretrain.checkpoints import Checkpoints
    from tapray.pretrain.frames import open_stream
    from tapray.pretrain.pictures import Pictures

    target, settings, log = job.folder.stage("pretrain"), config.pretrain, _log(job, number)
    folder = target / "checkpoints" / identity
    stream = open_stream(frames, regions[Role.VAL], config, settings.sampler, config.seed)
    saved = Checkpoints(folder, settings.keep_checkpoints)
    if saved.latest() is None:
        shutil.rmtree(_pictures(job, number), ignore_errors=True)  # of a net with other workers
    pictures = Pictures(stream, settings, config.channels, saved, _pictures(job, number))
    run_id = _run(job, number)
    live, tell = job.tracker.live(run_id), telling_workers(config, job.reporter.say)

    def show(record: dict[str, Any]) -> None:
        tell(record)
        live(record)
        pictures.draw()

    net = run(config, regions, frames, folder, log, job.reporter, show)
    pictures.draw()
    return net


def telling_workers(config: JobConfig, say: Callable[[str], None]) -> Callable[[Mapping[str, Any]], None]:
    """To be called with each record: says where there are more or fewer workers than before.

    Records come once more where a log is read anew, since training goes on from an earlier step.
    """
    step, workers = 0, config.ray.workers[1]

    def tell(record: Mapping[str, Any]) -> None:
        nonlocal step, workers
        if record["step"] > step and record["workers"] != workers:
            workers = record["workers"]
            say(f"{workers} workers share each batch of {config.pretrain.batch} now; the rate stays")
        step = max(step, record["step"])

    return tell
