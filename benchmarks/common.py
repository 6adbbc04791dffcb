"""What the benchmarks share: where they ran, how they print, and movies to run on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray


def emit(name: str, figures: dict[str, Any]) -> None:
    """Prints the figures as JSON, with the commit and the machine they were taken on."""
    print(json.dumps({"benchmark": name, **figures, "commit": commit(), "machine": machine()}, indent=1))


def commit() -> str:
    """The commit of the checkout, with a plus where files were changed."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=here, capture_output=True, text=True
    )
    return found.stdout.strip() or "not a git checkout"


def machine() -> dict[str, Any]:
    """Processor, cores, memory and Python."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "python": platform.python_version(),
    }


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    """A larger frame of noisy nuclei (height, width), to be shifted about: quick, and as hard to compress."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    cell = 400 * np.exp(-((y - 32) ** 2 + (x - 32) ** 2) / 150)
    tiled = np.tile(cell, (-(-height // 64), -(-width // 64)))[:height, :width]
    return np.asarray(rng.poisson(120 + tiled), np.uint16)


def write_movie(path: Path, frames: int, height: int, width: int, compression: str | None) -> None:
    """A TIFF stack (T, Y, X) written frame by frame, each the texture shifted by other amounts."""
    base = texture(height, width)

    def shifted():  # type: ignore[no-untyped-def]
        for t in range(frames):
            yield np.roll(base, (7 * t, 13 * t), axis=(0, 1))

    tifffile.imwrite(
        path,
        shifted(),
        shape=(frames, height, width),
        dtype=np.uint16,
        compression=compression,
        photometric="minisblack",
        bigtiff=True,
        metadata={"axes": "TYX"},
    )
