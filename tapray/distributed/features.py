"""Ray Data: dense features of every labelled crop, once for each frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from numpy.lib.format import open_memmap

from tapray.config import JobConfig
from tapray.console import Reporter
from tapray.crops.shards import ShardReader
from tapray.model.encoders import build_encoder
from tapray.model.tap import freeze
from tapray.study.fit import in_batches
from tapray.study.store import encoder_name, frozen_encoders


class Embed:
    """An actor that holds the frozen encoders and embeds one shard at a time."""

    def __init__(self, config: str, shards: str, model: str) -> None:
        self.config, self.reader = JobConfig.model_validate_json(config), ShardReader(Path(shards))
        study = self.config.study
        self.nets = {
            encoder_name(init, draw): freeze(
                build_encoder(init, draw, self.config.pretrain.preset, Path(model))
            )
            for init, draw in frozen_encoders(study.inits, study.random_draws)
        }

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        crop_id, pairs = self.reader.read_part(Path(batch["path"][0]), self.config.crops.intensity)
        out: dict[str, Any] = {"crop_id": crop_id, "pixels": pairs.astype(np.float16)}
        for name, net in self.nets.items():
            out[name] = in_batches(lambda x, net=net: net.features(x).half(), pairs).numpy()
        return out


def write_features(config: JobConfig, shards: Path, model: Path, folder: Path, reporter: Reporter) -> None:
    """Fills a feature folder (see tapray.study.store); the driver writes, actors compute."""
    reader = ShardReader(shards)
    index: pd.DataFrame = reader.index()
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"path": str(path)} for path in reader.parts()]
    actors = max(1, min(len(rows), int(ray.cluster_resources().get("CPU", 1))))
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Embed,
        batch_size=1,
        fn_constructor_args=(config.model_dump_json(), str(shards.resolve()), str(model.resolve())),
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    arrays: dict[str, np.memmap[Any, Any]] = {}
    with reporter.task("features", len(index), "pair") as progress:
        for batch in dataset.iter_batches(batch_size=None, batch_format="numpy"):
            crop_id = batch.pop("crop_id")
            for name, values in batch.items():
                if name not in arrays:
                    shape = (len(index), *values.shape[1:])
                    arrays[name] = open_memmap(folder / f"{name}.npy", "w+", np.float16, shape)
                arrays[name][crop_id] = values
            progress.advance(len(crop_id))
    for array in arrays.values():
        array.flush()
    pq.write_table(pa.Table.from_pandas(index), folder / "index.parquet")
