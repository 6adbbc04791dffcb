"""What the benchmarks share: where they ran, how they print, and movies to run on."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from tapray.config import JobConfig, SamplerKind
from tapray.crops.draw import Region
from tapray.crops.normalise import frame_ranges
from tapray.pretrain import frames as store
from tapray.pretrain.trainer import MEMORY


def emit(name: str, figures: dict[str, Any]) -> None:
    """Prints the figures as JSON, with the commit and the machine they were taken on."""
    print(json.dumps({"benchmark": name, **figures, "commit": commit(), "machine": machine()}, indent=1))


def as_workers() -> None:
    """Begins the command anew with the memory settings of Ray's workers, unless it has them."""
    if not MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **MEMORY})


def commit() -> str:
    """The commit of the checkout, with a plus where files were changed."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=here, capture_output=True, text=True
    )
    return found.stdout.strip() or "not a git checkout"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, Python, and the GPU where there is one."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "python": platform.python_version(),
    }


def store_frames(
    folder: Path,
    region: Region,
    read: Callable[[int, int], NDArray[Any]],
    config: JobConfig,
    *kinds: SamplerKind,
) -> None:
    """A region's frames with the drawing weights of some samplers, as the pretraining stage leaves them.

    read: whole frames (n, H, W) from one to another of the movie; 16 at a time are held. Of several processes
    that ask for the same at once, one makes it.
    """
    target = store.region_folder(folder, region)
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _store(target, region, read, config, kinds)


def _store(
    target: Path,
    region: Region,
    read: Callable[[int, int], NDArray[Any]],
    config: JobConfig,
    kinds: tuple[SamplerKind, ...],
) -> None:
    delta = max(config.deltas)
    if not (target / "filled").exists():
        starts = range(region.start, region.stop, 16)
        ranges = [
            frame_ranges(read(first, min(first + 16, region.stop)), config.crops.intensity)
            for first in starts
        ]
        store.create(
            target, region, read(region.start, region.start + 1).dtype, np.concatenate(ranges), config
        )
        for first in starts:
            frames = read(first, min(first + 16 + delta, region.stop))
            cut = frames[:, region.top : region.bottom, region.left : region.right]
            store.fill(target, first - region.start, cut, min(16, region.stop - first), config)
        (target / "filled").touch()
    for kind in kinds:
        if not (target / f"pairs-{config.deltas[0]}-{kind}.npy").exists():
            store.weigh(target, region, config, kind)


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

    def shifted() -> Iterator[NDArray[np.uint16]]:
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
