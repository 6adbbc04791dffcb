"""Inputs with a random fault: one line or a correct result, never anything between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bad_inputs import FRAMES, check_shards, event_table, make_case, run_case, study_of, tiff
from tapray.configfile import parse_config
from tapray.crops.collect import Inputs
from tapray.crops.shards import make_shard, write_shard, write_table


def without_ray(study: dict[str, Any]) -> Path:
    """The shards as the stage writes them, in this process."""
    import pyarrow as pa

    config = parse_config(study)
    inputs = Inputs(config, config.movies)
    index, movie = inputs.index, inputs.movies["m"]
    folder = Path(study["out"]).with_name("shards")
    frames = movie.read(0, movie.shape[0])
    write_shard(folder, 0, make_shard(frames, 0, movie.shape[0], "m", index, config.crops))
    write_table(pa.Table.from_pandas(index, preserve_index=False), folder / "index.parquet")
    return folder


@settings(max_examples=200, database=None)
@given(number=st.integers(0, 1 << 32))
def test_every_case_is_one_line_or_correct(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    outcome, name, said = run_case(number, tmp_path_factory.mktemp("case"), without_ray)
    assert outcome != "wrong", (name, said)


def test_the_sound_input_is_sharded(tmp_path: Path) -> None:
    path = tiff(tmp_path / "movie", FRAMES)
    assert check_shards(without_ray(study_of(path, event_table(tmp_path), tmp_path)), path) is None


def test_wrong_pixels_would_be_noticed(tmp_path: Path) -> None:
    path = tiff(tmp_path / "movie", FRAMES)
    shards = without_ray(study_of(path, event_table(tmp_path), tmp_path))
    tiff(tmp_path / "movie", FRAMES[::-1])
    assert check_shards(shards, path) == "other pixels than the file's"


def test_cases_follow_from_their_number(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    names = {make_case(3, tmp_path / folder)[0] for folder in ("a", "b")}
    assert len(names) == 1
