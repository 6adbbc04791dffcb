"""A small feature folder for the tests of what reads one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.study.cache import FeatureCache


def write_store(folder: Path, index: pd.DataFrame, arrays: Mapping[str, NDArray[np.float16]]) -> Path:
    """Writes index and arrays as the features stage does; returns the folder."""
    cache = FeatureCache(folder.parent / f"{folder.name}-cache", 1e9)
    with cache.filling({name.replace("/", "-"): array.shape for name, array in arrays.items()}) as blanks:
        for name, array in arrays.items():
            np.save(blanks[name.replace("/", "-")], array)
    folder.mkdir(exist_ok=True)
    told = {name: f"../{cache.folder.name}/{name.replace('/', '-')}.arrow" for name in arrays}
    (folder / "arrays.json").write_text(json.dumps({"arrays": told, "cut": {}}))
    index.to_parquet(folder / "index.parquet")
    return folder
