"""What commands share: the study, where its run folder is, how progress is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tapray.errors import UserError

if TYPE_CHECKING:
    from tapray.console import Mode, Reporter

Study = Annotated[Path, typer.Argument(help="Study configuration (YAML).")]
Out = Annotated[Path | None, typer.Option(help="Run folder; default: the study's own, or runs/NAME.")]
Force = Annotated[list[str] | None, typer.Option(help="Redo this stage and what follows (repeatable).")]
Progress = Annotated[str, typer.Option(help="rich, quiet or json (one JSON object a line).")]


def reporter(mode: str) -> Reporter:
    """What tells progress in this mode; UserError if there is none of that name."""
    from tapray.console import Reporter

    modes: dict[str, Mode] = {"rich": "rich", "quiet": "quiet", "json": "json"}
    if mode not in modes:
        raise UserError(f"unknown progress mode '{mode}'", where="--progress", todo="use rich, quiet or json")
    return Reporter(modes[mode])
