"""Write docs/configuration.md from the models of the configuration: ``python docs/make_configuration.py``.

Types and defaults come from the models. A field's meaning is the comment beside or above it in
the source, or else its entry in `MEANINGS`.
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import tokenize
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tapray import config, entries, studyconfig

PAGE = Path(__file__).with_name("configuration.md")
SECTIONS: dict[str, type[BaseModel]] = {
    "": config.JobConfig,
    "movies[]": config.MovieEntry,
    "movies[].annotations[]": config.Annotation,
    "simulate": config.SimulateConfig,
    "crops": config.CropConfig,
    "split": config.SplitConfig,
    "pretrain": config.PretrainConfig,
    "study": config.StudyConfig,
    "cache": config.CacheConfig,
    "tracking": config.TrackingConfig,
    "ray": config.RayConfig,
}
CHOICES: tuple[type[StrEnum], ...] = (
    config.AnnotationKind,
    config.Role,
    config.SplitKind,
    config.SamplerKind,
    config.Init,
    config.HeadKind,
    config.Layer,
    config.Pooling,
    config.ClassWeights,
    config.Dimension,
)
# What has no comment in the source; a test refuses entries that are stale or have one by now.
MEANINGS = {
    "Annotation.kind": "what the path holds, see [Annotations](annotations.md)",
    "MovieEntry.annotations": "what is known of the movie; several are merged",
    "Role.TRAIN": "encoder and heads are trained on it",
    "Role.VAL": "checkpoint, settings, threshold and calibration are chosen on it",
    "Role.TEST": "scored once",
    "SimulateConfig.n_movies": "fields of view: the first are for training",
    "SimulateConfig.frames": "frames of each movie",
    "SimulateConfig.height": "pixels",
    "SimulateConfig.width": "pixels",
    "SimulateConfig.seed": "same seed, same movies",
    "CropConfig.size": "side of a labelled crop in pixels",
    "CropConfig.delta": "frames between the two frames of a crop pair, here and by default in pretraining",
    "SplitKind.MOVIE": "whole movies, by their `role`",
    "SplitKind.TIME_BLOCK": "consecutive frames of every movie",
    "SplitKind.TILE": "strips of every movie, all frames",
    "SplitConfig.kind": "see [Splits and leaks](splits.md)",
    "SplitConfig.allow_leak": "go on although the leakage audit finds overlap; results are marked leaky",
    "SamplerKind.UNIFORM": "anywhere; published",
    "PretrainConfig.size": "side of a pretraining crop in pixels",
    "PretrainConfig.steps_per_epoch": "optimiser steps between two validations",
    "PretrainConfig.epochs": "in all; the net of the one of best validation arrow accuracy is kept",
    "PretrainConfig.sampler": "where crops are drawn",
    "PretrainConfig.optimizer": "published: `adam`",
    "PretrainConfig.weight_decay": "of the optimiser; published: 1e-6",
    "PretrainConfig.decorrelation": "weight of the decorrelation loss; published: 0.01",
    "PretrainConfig.augment": "`light`: flips, quarter turns, intensity; `paper`: also any angle, "
    "scale, shift, elastic deformation, noise",
    "PretrainConfig.val_batches": "batches that give the validation arrow accuracy, the same every epoch",
    "PretrainConfig.precision": "numbers that the net computes with; weights stay `fp32`",
    "StudyConfig.search": "what a search varies, see [Studies](studies.md)",
    "StudyConfig.sampler": "who proposes: random, a grid, or what learns: Optuna's TPE or Gaussian process",
    "Dimension.LEARNING_RATE": "the highest of the schedule",
    "Dimension.WEIGHT_DECAY": "penalty on squared weights",
    "Dimension.CLASS_WEIGHTS": "what a class counts in training",
    "Dimension.DROPOUT": "share of what goes into the last layer that is left out in training",
    "Pooling.CENTRE": "a narrow window and one of a third of the crop",
    "Pooling.WHOLE": "a window of a quarter of the crop, and the whole of it",
    "StudyConfig.inits": "initialisations to compare",
    "StudyConfig.heads": "event heads to compare",
    "StudyConfig.budgets": "label budgets to compare; the largest must fit into the training split",
    "StudyConfig.negatives_per_event": "known negatives in a label budget of events, for each of them; of a "
    "budget of crops not read",
    "StudyConfig.batch": "crops a step of head training, classes in equal parts",
    "HeadKind.LINEAR": "one fully connected layer on all features; published",
    "HeadKind.RESNET": "one residual block, mean over pixels and frames; published",
    "HeadKind.MLP": "features averaged on a 4 x 4 grid, one hidden layer",
    "HeadKind.POOLED": "a linear layer on statistics around the crop's centre; fewest weights",
    "TrackingConfig.experiment": "MLflow experiment",
    "RayConfig.num_cpus": "CPUs of the local cluster; null: all. Not read where `address` is given",
    "RayConfig.use_gpu": "a GPU for each pretraining worker; features and study run on CPUs",
    "RayConfig.max_failures": "restarts of pretraining after lost workers; counted anew where it got on",
    "RayConfig.concurrent_trials": "trials of the study at a time, a CPU each",
    "JobConfig.name": "name of the job, of its MLflow run and, by default, of its run folder",
    "JobConfig.out": "run folder, relative to the working directory, on a cluster on storage that all "
    "machines mount; of a study file that names none: `runs/<name>`",
    "JobConfig.seed": "of the crops, the pretraining and the search; final runs count seeds from 0",
    "JobConfig.movies": "your movies; give one of these, `collection` and `simulate`",
    "JobConfig.simulate": "simulated movies instead; `{}` for all defaults",
    **{
        f"JobConfig.{name}": f"see [below](#{name})"
        for name in ("crops", "split", "pretrain", "study", "cache", "tracking", "ray")
    },
}

HEAD = """\
# Configuration

Every key of a study file, with type, default and meaning. This page is made by
`docs/make_configuration.py` from `tapray/config.py`, `entries.py` and `studyconfig.py`; change it there.

A study is one YAML file. An unknown key, a key given twice or a value out of range is refused in one
line that names the key. Lengths are in pixels, times in frames. Paths of movies and annotations are
relative to the file that names them, the study or the collection. `tapray run` writes the whole
configuration, defaults included, to `config.yaml` of the run folder; the movies of a collection are
listed there. From Python the same keys go through `tapray.configfile.parse_config`, which opens no file;
a study file, with or without `collection`, goes through `load_config`, one with
[variants](studies.md#variants) through `load_variants`.

Only `out`, `mirror`, `cache`, `ray` and `tracking` may change while a run folder stays in use; any other
change asks for a new run folder. Of these only `ray.train_workers` and, as any other processor does,
`ray.use_gpu` change results, and only while pretraining is unfinished.
"""
MOVIES = """
A collection file holds this list alone, under `movies:`. What a path may be, and how wildcards and the
placeholders of `name`, `field` and the annotations' paths are filled in: [Movies and formats](data.md).
A name holds letters, digits and `_ . + -`; rows of an event table are found by it. `role` is needed where
`split.kind` is `movie` without folds, and may be given where it is `field` without folds; movies of one
field then share one. Where movies are cut (`time_block`, `tile`), one with a `role` belongs to that split as
a whole. `condition` goes into `shard/manifest.json` and is not used otherwise.
"""
CLUSTER = """
Without `address`, and without `RAY_ADDRESS` in the environment, each command starts Ray on this machine and
ends it. With either (for example `auto`, or `HOST:6379`) it joins a cluster that runs already:
[On a cluster](cluster.md). Ray's token authentication is switched on (`RAY_AUTH_MODE=token`) unless the
variable is set to something else.
"""
GPU = """
On a GPU set `ray.use_gpu: true`, `ray.train_workers` to the number of GPUs, and here `precision: bf16`,
`channels_last: true` and `compile: true`. Small batches are bound by starting kernels: take 512 crop pairs or
more for each GPU, and a `learning_rate` to go with them. What it brings: [Measured](results.md#on-a-gpu).
"""
NOTES = {"movies[]": MOVIES, "pretrain": GPU, "ray": CLUSTER}


def sources() -> dict[str, str]:
    """The comments of all modules that hold the configuration."""
    return {
        name: text
        for module in (config, entries, studyconfig)
        for name, text in comments(inspect.getsource(module)).items()
    }


def comments(source: str) -> dict[str, str]:
    """`Class.field` -> the comment beside it, or above it where there is none beside."""
    beside: dict[int, str] = {}
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            kind = alone if token.line.strip().startswith("#") else beside
            kind[token.start[0]] = token.string.lstrip("# ").strip()
    found = {}
    for owner in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for node in owner.body:
            if isinstance(node, ast.AnnAssign | ast.Assign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                above = list(_block_above(alone, node.lineno))
                text = beside.get(node.end_lineno or node.lineno) or " ".join(reversed(above))
                if text:
                    found[f"{owner.name}.{ast.unparse(target)}"] = text
    return found


def _block_above(alone: dict[int, str], line: int) -> Iterator[str]:
    """Comment lines that end just above `line`, from the last to the first."""
    while (line := line - 1) in alone:
        yield alone[line]


def type_name(kind: Any) -> str:
    """A type in words."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join(filter(None, [type_name(args[0]), *(limits(arg) for arg in args[1:])]))
    if origin in (Union, UnionType):
        return " or ".join("null" if arg is NoneType else type_name(arg) for arg in args)
    if origin is Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"list of {type_name(args[0])}"
        return f"{len(args)} of {type_name(args[0])}"
    if origin is dict:
        return f"{type_name(args[1])}, by {type_name(args[0])}"
    if issubclass(kind, StrEnum):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if issubclass(kind, BaseModel):
        return "section"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
    return words[kind]


def limits(field: FieldInfo) -> str:
    """What values are allowed, such as `>= 1`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = (
        (signs[name], getattr(item, name))
        for item in getattr(field, "metadata", ())
        for name in signs
        if hasattr(item, name)
    )
    return " ".join(f"{sign} {value:g}" for sign, value in found)


def default_text(field: FieldInfo) -> str:
    """The default as YAML holds it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if value == "":
        return "`''`"
    plain = value.as_posix() if isinstance(value, Path) else value
    return f"`{json.dumps(plain).replace(chr(34), '')}`"


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def meaning(owner: type, name: str, texts: dict[str, str]) -> str:
    """The comment of a field or choice, its own or inherited, or its entry in MEANINGS; KeyError without."""
    known = (texts[key] for kind in owner.__mro__ if (key := f"{kind.__name__}.{name}") in texts)
    return (next(known, "") or MEANINGS[f"{owner.__name__}.{name}"]).replace("None:", "null:")


def own_first(model: type[BaseModel]) -> list[str]:
    """The fields of a model, inherited ones last."""
    inherited = [name for base in model.__bases__ for name in getattr(base, "model_fields", {})]
    return sorted(model.model_fields, key=lambda name: name in inherited)


def render() -> str:
    """The whole page."""
    texts = sources()
    lines = [HEAD]
    for title, model in SECTIONS.items():
        summary = inspect.getdoc(model) if "__doc__" in vars(model) and model.__doc__ else None
        lines += [f"## {title or 'The study'}", ""]
        if summary:
            lines += [" ".join(summary.split()).replace("``", "`"), ""]
        lines += [row("key", "type", "default", "meaning"), row("---", "---", "---", "---")]
        for name in own_first(model):
            field = model.model_fields[name]
            kind = " ".join(filter(None, [type_name(field.annotation), limits(field)]))
            lines.append(row(f"`{name}`", kind, default_text(field), meaning(model, name, texts)))
        lines.append(NOTES.get(title, ""))
    lines += ["## Choices", ""]
    for choice in CHOICES:
        lines += [f"### {choice.__name__}", "", row("value", "meaning"), row("---", "---")]
        lines += [row(f"`{item.value}`", meaning(choice, item.name, texts)) for item in choice]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
