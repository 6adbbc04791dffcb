"""Array files (.npy) that several processes fill, on one machine or many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_rows(path: Path, first: int, rows: NDArray[Any]) -> None:
    """Rows of an array file from `first` on, as bytes: maps of a network file system share whole pages."""
    array = np.load(path, mmap_mode="r")
    with path.open("r+b") as file:
        file.seek(array.offset + first * (array.nbytes // len(array)))
        file.write(np.ascontiguousarray(rows, array.dtype).data)
