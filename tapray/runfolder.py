"""The run folder: who owns it, which stages are done, and files that are never half-written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path, PurePath
from typing import IO, Any

import yaml
from pydantic import BaseModel

from tapray.atomic import SUFFIX, atomic_write
from tapray.config import JobConfig
from tapray.errors import UserError
from tapray.provenance import command, environment, git_commit, versions, without_folders, without_paths
from tapray.redaction import redacted

# Keys that do not change results: a run may be continued with others, or from a moved folder.
_FREE_KEYS = ("out", "mirror", "cache", "ray", "tracking")
_OTHER_OUT = "choose another out"


def _plain(value: Any) -> Any:
    """``value`` in terms of JSON; raises TypeError for what has no such form."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item) for item in value]
        return sorted(items) if isinstance(value, set | frozenset) else items
    if hasattr(value, "tolist"):  # arrays and their scalars
        return value.tolist()
    return value


def content_hash(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of models, mappings, sequences, paths, enums.

    Tuples equal lists. Raises TypeError for what JSON cannot hold, ValueError for nan and inf.
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class RunFolder:
    """The folder of one job: ``config.yaml``, ``environment.json`` and one folder per stage.

    A stage is done when its ``done.json`` holds the key, a hash of all that it depends on.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out).absolute()
        self._lock: IO[bytes] | None = None

    def claim(self, config: JobConfig) -> None:
        """Makes the folder this job's own, or continues the job that it already belongs to.

        Holds a lock until ``release`` or the end of the process. Raises UserError, with nothing
        written, if the folder holds other files, belongs to another configuration or is in use.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.out.iterdir()}
        except OSError as error:
            raise UserError(f"cannot be used ({error.strerror})", where=self.out, todo=_OTHER_OUT) from None
        rest = {name for name in names if name != ".lock" and not name.endswith(SUFFIX)}
        if rest and not (self.out / "config.yaml").is_file():
            raise UserError("is not empty and is not a run folder", where=self.out, todo=_OTHER_OUT)
        self._check(config)
        self._hold()
        self._check(config)  # another job may have written it before the lock was ours
        for path in self.out.glob(f".*{SUFFIX}"):  # left behind by a killed job
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        config_yaml = yaml.safe_dump(_settings(config), sort_keys=False, allow_unicode=True)
        for name, text in (
            ("config.yaml", config_yaml),
            ("environment.json", json.dumps(environment(), indent=2) + "\n"),
        ):
            if not (self.out / name).exists():
                atomic_write(self.out / name, text)

    def release(self) -> None:
        """Gives the lock back, so that another job of this process may claim the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def stage(self, name: str) -> Path:
        """The folder of a stage, there or not."""
        if not name or name.startswith(".") or "/" in name:
            raise ValueError(f"not a stage name: {name!r}")
        return self.out / name

    def is_done(self, name: str, key: str) -> bool:
        """Whether the stage was finished with just this key."""
        return bool(self._done(name).get("key") == key)

    def begin(self, name: str, key: str) -> None:
        """Removes what an interrupted run has left of the stage, unless it was made with this key."""
        note = self.out / f".begun-{name}"
        if not note.exists() or note.read_text() != key:
            self.forget(name)
            atomic_write(note, key)

    def mark_done(self, name: str, key: str, *, seconds: float | None = None, **facts: Any) -> None:
        """Notes that the stage is finished, with facts for the stages and reports after it.

        Args:
            seconds: that it took, since it was last begun.
        """
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        made = {"finished": finished, "command": command(), "git_commit": git_commit()}
        record = {"key": key, **made, "seconds": seconds, "versions": versions(), "facts": _plain(facts)}
        atomic_write(self.stage(name) / "done.json", json.dumps(record, indent=2) + "\n")

    def forget(self, name: str) -> None:
        """Removes the stage's folder."""
        folder = self.stage(name)
        (folder / "done.json").unlink(missing_ok=True)  # first: what is left is not a finished stage
        if folder.exists():
            shutil.rmtree(folder)

    def facts(self, name: str) -> dict[str, Any]:
        """What ``mark_done`` was given; empty if the stage is not done."""
        return dict(self._done(name).get("facts", {}))

    def about(self, config: JobConfig) -> dict[str, str]:
        """How this folder was made, by title: commands, settings without places, and versions."""
        settings = {key: value for key, value in _settings(config).items() if key not in _FREE_KEYS}
        settings = without_folders(settings)
        names = sorted(path.parent.name for path in self.out.glob("*/done.json"))
        stages = {name: self._done(name) for name in names}
        made = {name: facts.get("git_commit") for name, facts in stages.items()}
        told = {"stages, by commit": made, "environment": environment()}
        by_time = sorted(stages.values(), key=lambda facts: str(facts.get("finished")))
        given = dict.fromkeys([*(facts.get("command", "") for facts in by_time), command()])
        again = ("tapray run config.yaml --out .", "tapray ui .", "tapray predict model MOVIE.tif")
        return {
            "Commands that made this": "\n".join(map(without_paths, given)),
            "Commands to go on with, in the run folder": "\n".join(again),
            "Configuration": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
            "Versions": json.dumps(told, indent=2),
        }

    def _done(self, name: str) -> dict[str, Any]:
        path = self.stage(name) / "done.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def _hold(self) -> None:
        if self._lock is not None:
            return
        with ExitStack() as stack:  # closes the file unless the lock is had
            try:
                lock = stack.enter_context((self.out / ".lock").open("ab"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError("another job is running here", where=self.out, todo=_OTHER_OUT) from None
            except OSError as error:
                raise UserError(
                    f"cannot be locked ({error.strerror})", where=self.out, todo=_OTHER_OUT
                ) from None
            stack.pop_all()
            self._lock = lock

    def _check(self, config: JobConfig) -> None:
        path = self.out / "config.yaml"
        if not path.exists():
            return
        try:
            there = yaml.safe_load(path.read_text(encoding="utf-8"))
            there = {key: value for key, value in there.items() if key not in _FREE_KEYS}
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
            raise UserError("is not a configuration", where=path, todo=_OTHER_OUT) from None
        here = {key: value for key, value in _settings(config).items() if key not in _FREE_KEYS}
        if there != here:
            what = f"is in use by another configuration (first differing key: {_difference(there, here)})"
            raise UserError(what, where=self.out, todo=_OTHER_OUT)


def _settings(config: JobConfig) -> dict[str, Any]:
    """The configuration as YAML can hold it, without passwords."""
    settings: dict[str, Any] = redacted(config.model_dump(mode="json"))
    return settings


def _difference(there: Any, here: Any, key: str = "") -> str:
    """The first differing key of two unequal values, dotted, with what it is in each."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return f"{key}, {there!r} there and {here!r} here"
    pairs = {name: (there.get(name, "nothing"), here.get(name, "nothing")) for name in {**here, **there}}
    name = next(name for name, (old, new) in pairs.items() if old != new)
    return _difference(*pairs[name], f"{key}.{name}" if key else str(name))
