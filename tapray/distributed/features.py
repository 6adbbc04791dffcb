"""Ray Data: dense features of every labelled crop, once for each frozen encoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import ray.data
from numpy.lib.format import open_memmap
from torch import Tensor

from tapray.atomic import atomic_folder
from tapray.config import JobConfig
from tapray.console import Reporter
from tapray.crops.shards import ShardReader, write_table
from tapray.model.encoders import build_encoder
from tapray.model.tap import TapNet, freeze
from tapray.study.fit import in_batches
from tapray.study.store import encoder_name, frozen_encoders


def _half_features(net: TapNet, frames: Tensor) -> Tensor:
    return net.features(frames).half()


class Embed:
    """An actor that holds the frozen encoders and embeds one shard at a time."""

    def __init__(self, config: str, shards: str, model: str) -> None:
        self.config, self.reader = JobConfig.model_validate_json(config), ShardReader(Path(shards))
        study = self.config.study
        self.nets: dict[str, TapNet] = {}
        for init, draw in frozen_encoders(study.inits, study.random_draws):
            preset, channels = self.config.pretrain.preset, self.config.channels
            net = build_encoder(init, draw, preset, channels, Path(model))
            freeze(net)
            self.nets[encoder_name(init, draw)] = net

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embeds the shard at batch["path"]: crop_id (n,), pixels and features as the store holds them."""
        crop_id, pairs = self.reader.read_part(Path(batch["path"][0]), self.config.crops.intensity)
        out: dict[str, Any] = {"crop_id": crop_id, "pixels": pairs.astype(np.float16)}
        for name, net in self.nets.items():
            out[name] = in_batches(partial(_half_features, net), pairs).numpy()
        return out


def write_features(config: JobConfig, shards: Path, model: Path, folder: Path, reporter: Reporter) -> None:
    """Fills a feature folder (see study.store), whole or not at all; the driver writes, actors compute.

    Raises:
        UserError: the pretrained model or the shards are damaged.
    """
    reader = ShardReader(shards)
    index: pd.DataFrame = reader.index()
    arrays: dict[str, np.memmap[Any, Any]] = {}
    with reporter.task("features", len(index), "pair") as progress, atomic_folder(folder) as beside:
        for batch in _embedded(config, shards, model, reader.parts()).iter_batches(
            batch_size=None, batch_format="numpy"
        ):
            crop_id = batch.pop("crop_id")
            for name, values in ((str(key), own) for key, own in batch.items()):
                if name not in arrays:
                    shape = (len(index), *values.shape[1:])
                    arrays[name] = open_memmap(beside / f"{name}.npy", "w+", np.float16, shape)
                arrays[name][crop_id] = values
            progress.advance(len(crop_id))
        for array in arrays.values():
            array.flush()
        write_table(pa.Table.from_pandas(index), beside / "index.parquet")


def _embedded(config: JobConfig, shards: Path, model: Path, parts: list[Path]) -> ray.data.Dataset:
    """One batch per shard, lazily: crop_id, pixels and the features of every frozen encoder."""
    cpus = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]  # Ray has no type here
    rows = [{"path": str(path)} for path in parts]
    actors = max(1, min(len(rows), int(cpus)))
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Embed,
        batch_size=1,
        fn_constructor_args=(config.model_dump_json(), str(shards.resolve()), str(model.resolve())),
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
