"""Runs that are over before they are logged, such as trials, and what the store has of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Tags = Mapping[str, str]
Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Finished:
    """A run that is over before it is logged, such as a trial."""

    name: str
    identity: str
    status: Status
    tags: Tags
    params: Mapping[str, Any]
    metrics: Mapping[str, float]

    @property
    def content(self) -> str:
        """Hash of what it says but for the time it took."""
        metrics = {key: value for key, value in self.metrics.items() if key != "seconds"}
        told = json.dumps([self.status, self.params, metrics], sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Child:
    """A run that the store has, nested in another."""

    run_id: str
    status: str
    content: str

    def replaced_by(self, run: Finished) -> bool:
        """Whether the run of the same identity says something else; without content it may be half of one."""
        return self.content != run.content and bool(self.content or self.status == run.status)
