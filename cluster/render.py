"""Writes the files of this folder from values.yaml and templates/, so that they agree.

python cluster/render.py          # writes them
python cluster/render.py --check  # exit status 1 if one is not what it would write
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import yaml

import tapray

HERE = Path(__file__).parent
PYTHON = "3.11"  # of the images


def values() -> dict[str, Any]:
    """What the templates may name: values.yaml, the versions of this environment, and `can_grow`."""
    given: dict[str, Any] = yaml.safe_load((HERE / "values.yaml").read_text(encoding="utf-8"))
    versions = {"version": tapray.__version__, "ray": version("ray"), "python": PYTHON}
    return {**given, **versions, "can_grow": can_grow}


def can_grow(*groups: dict[str, Any]) -> str:
    """What all machines of these groups have together, for TAPRAY_CAN_GROW."""
    cpus, gpus = (sum(size["most"] * size.get(kind, 0) for size in groups) for kind in ("cpu", "gpus"))
    return f"CPU={cpus},GPU={gpus}"


def rendered() -> Iterator[tuple[Path, str]]:
    """Each file of this folder that is made, and its text."""
    loader = jinja2.FileSystemLoader(HERE / "templates")
    made = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    made.filters["tojson"] = json.dumps  # Jinja's own escapes what web pages would mistake
    for name in sorted(made.list_templates(filter_func=lambda name: not Path(name).name.startswith("_"))):
        notice = f"# Made by cluster/render.py from cluster/templates/{name} and values.yaml; edit those.\n"
        text = made.get_template(name).render(values())
        first, rest = text.split("\n", 1)
        whole = f"{first}\n{notice}{rest}" if first.startswith("#!") else notice + text
        yield HERE / name.removesuffix(".j2"), whole


def main() -> None:
    """Writes or checks the files."""
    stale = [(path, text) for path, text in rendered() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        print(path.relative_to(HERE))
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
    sys.exit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
