"""What a worker does with a work: trains its members and leaves their records, all of them or none."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from tapray.atomic import atomic_write
from tapray.config import JobConfig
from tapray.study.cells import Cell
from tapray.study.halving import DIVERGED, run_halving
from tapray.study.results import kind_of, work_name
from tapray.study.scoring import final_record, search_scores
from tapray.study.space import settings_of
from tapray.study.statistics import time_blocks
from tapray.study.works import SEARCH_SEED, Fitted, Member, Work, run_work

Record = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Folders of a study: the features, the pretrained net, and where the records are kept."""

    store: Path
    model: Path
    records: Path


def run_trials(config: JobConfig, places: Places, asked: Sequence[Record]) -> list[Record]:
    """Runs search trials or final runs of one cell, writes their file and returns their records.

    Where they fail together each is tried by itself; what fails then too has a record that says so. Of what
    is there already, from a worker that died before it could tell, the records are returned.

    Args:
        asked: of each the cell, the settings, and the number of the trial or the seed of the run.

    Raises:
        OSError: a file or disk is away, which is no trial's fault.
        Exception: whatever the only one asked for raises.
    """
    kind = kind_of(asked)
    names = [work_name(kind, each) for each in asked]
    target = places.records / names[0]
    with suppress(FileNotFoundError):
        known: list[Record] = json.loads(target.with_suffix(".json").read_text())
        if [work_name(kind, record) for record in known] == names:
            return known
    start = time.process_time()  # what it costs of a core, whatever else the machine does
    try:
        outcomes = _together(config, places, asked)
    except OSError:
        raise
    except Exception:
        if len(asked) == 1:
            raise
        outcomes = [_alone(config, places, each) for each in asked]
    each = (time.process_time() - start) / len(asked)
    records = [{**record, "seconds": each} for record, _ in outcomes]
    for suffix, data in (_files(outcomes) if kind == "run" else {}).items():
        atomic_write(target.with_suffix(suffix), data)
    atomic_write(target.with_suffix(".json"), json.dumps(records))  # last: it says that all is there
    return records


def failure(asked: Record, error: object) -> Record:
    """The record of a trial or run that failed, with its error as one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return {**asked, "status": "failed", "error": text[:500]}


Outcome = tuple[Record, Fitted | None]  # no arm where a search trial or a failed run ends


def _together(config: JobConfig, places: Places, asked: Sequence[Record]) -> list[Outcome]:
    cell = Cell.of(asked[0])
    members = tuple(
        Member(settings_of(cell.init, cell.head, each, config.study.fixed), each.get("seed", SEARCH_SEED))
        for each in asked
    )
    work = Work(config, places.store, places.model, cell, members)
    if "trial" not in asked[0]:
        fitted = run_work(work, ("val", "test"))
        return [_final(work, *each) for each in zip(members, asked, fitted, strict=True)]
    if config.study.halving and not cell.init.frozen:
        found = run_halving(work, config.study.halving)
    else:
        found = [
            {"status": "done", **search_scores(work, member, arm)} if arm.finite else DIVERGED
            for member, arm in zip(members, run_work(work, ("val",)), strict=True)
        ]
    return [({**each, **scores}, None) for each, scores in zip(asked, found, strict=True)]


def _final(work: Work, member: Member, asked: Record, fitted: Fitted) -> Outcome:
    if not fitted.finite:
        return {**asked, **DIVERGED}, None
    return {**asked, "status": "done", **final_record(work, member, fitted)}, fitted


def _alone(config: JobConfig, places: Places, asked: Record) -> Outcome:
    try:
        (outcome,) = _together(config, places, [asked])
    except OSError:
        raise
    except Exception as error:
        return failure(asked, error), None
    return outcome


def _files(outcomes: Sequence[Outcome]) -> dict[str, bytes]:
    """What final runs leave beside their records, by suffix.

    .npz: seeds (S,); of the test crops labels, groups, blocks (n,) and logits (S, n, K); val_labels and
    val_logits.
    .safetensors: the trained weights, by seed: SEED.head. and, where the encoder was trained too, SEED.tap.
    """
    done = [(record["seed"], fitted) for record, fitted in outcomes if fitted]
    if not done:
        return {}
    first, arrays, tensors = done[0][1], io.BytesIO(), dict[str, Tensor]()
    np.savez(
        arrays,
        seeds=np.array([seed for seed, _ in done]),
        labels=first.labels["test"],
        logits=np.stack([fitted.logits["test"] for _, fitted in done]),
        val_logits=np.stack([fitted.logits["val"] for _, fitted in done]),
        val_labels=first.labels["val"],
        groups=first.test["group"].to_numpy(),
        blocks=time_blocks(*(first.test[name].to_numpy() for name in ("field", "movie", "t", "group"))),
    )
    for seed, fitted in done:
        for name, module in (("head", fitted.head), ("tap", fitted.encoder)):
            state = module.state_dict() if module else {}
            tensors |= {f"{seed}.{name}.{key}": value.contiguous() for key, value in state.items()}
    return {".npz": arrays.getvalue(), ".safetensors": save(tensors)}
