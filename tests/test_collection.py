"""A line of a collection stands for the movies that are there, each with a name of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from upath import UPath

from tapray.collection import resolve_movies
from tapray.configfile import load_config
from tapray.entries import Annotation, AnnotationKind, MovieEntry
from tapray.errors import UserError


def entry(path: str, **more: object) -> MovieEntry:
    return MovieEntry.model_validate({"path": path, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/field_2.tif", "a/field_10.tif", "b/field_1.tif", "b/.hidden.tif", "odd [1].tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_wildcard_stands_for_all_it_finds_in_natural_order(folder: Path) -> None:
    found = resolve_movies([entry("a/*.tif"), entry("b/*.tif", condition="drug")], folder)
    assert [movie.name for movie in found] == ["field_2", "field_10", "field_1"]
    assert [movie.path for movie in found] == [
        folder / "a" / "field_2.tif",
        folder / "a" / "field_10.tif",
        folder / "b" / "field_1.tif",
    ]
    assert [movie.condition for movie in found] == ["", "", "drug"]
    assert [movie.field for movie in found] == ["field_2", "field_10", "field_1"]


def test_placeholders_fill_names_fields_and_annotations(folder: Path) -> None:
    note = Annotation(kind=AnnotationKind.EVENT_TABLE, path=Path("events/{parent}_{name}.csv"))
    listed = entry("**/field*.tif", name="{parent}-{stem}", field="{parent}", annotations=[note])
    found = resolve_movies([listed], folder)
    assert [movie.name for movie in found] == ["a-field_2", "a-field_10", "b-field_1"]
    assert [movie.field for movie in found] == ["a", "a", "b"]
    assert found[2].annotations[0].path == folder / "events" / "b_b-field_1.csv"


def test_resolved_movies_stay_as_they_are(folder: Path) -> None:
    once = resolve_movies([entry("*/*.tif"), entry("odd [1].tif")], folder)
    assert once[-1].path == folder / "odd [1].tif"  # there as it is written: no wildcard
    assert once[-1].name == "odd_1_.tif"[:6]
    assert resolve_movies(once, Path("elsewhere")) == once


@pytest.mark.parametrize(
    ("listed", "fault"),
    [
        ([entry("a/*.png")], "no file or folder matches"),
        ([entry("a/*.tif", name="{sten}")], r"unknown placeholder \{sten\}"),
        ([entry("a/*.tif", name="same")], "movie names must differ"),
        ([entry("a/field_2.tif"), entry("b/*.tif", name="field_2")], "movie names must differ"),
    ],
)
def test_faults_are_one_line(folder: Path, listed: list[MovieEntry], fault: str) -> None:
    with pytest.raises(UserError, match=fault) as raised:
        resolve_movies(listed, folder)
    assert "\n" not in str(raised.value)


def test_remote_paths_stay_addresses(folder: Path) -> None:
    found = resolve_movies(
        [entry("https://example.org/data/x.zarr"), entry(f"file://{folder}/a/*.tif")], folder
    )
    assert found[0].path == UPath("https://example.org/data/x.zarr")
    assert found[0].name == "x"
    assert [movie.name for movie in found[1:]] == ["field_2", "field_10"]


def test_a_study_lists_the_movies_of_its_collection(folder: Path) -> None:
    (folder / "lists").mkdir()
    movies = [{"path": "../a/*.tif", "role": "train"}, {"path": "../b/field_1.tif", "role": "test"}]
    (folder / "lists" / "all.yaml").write_text(yaml.safe_dump({"movies": movies}))
    (folder / "study.yaml").write_text("collection: lists/all.yaml\n")
    config = load_config(folder / "study.yaml")
    assert config.collection is None
    assert [movie.name for movie in config.movies] == ["field_2", "field_10", "field_1"]
    assert [movie.path.resolve() for movie in config.movies][2] == folder / "b" / "field_1.tif"
    (folder / "lists" / "all.yaml").write_text("films: []\n")
    with pytest.raises(UserError, match=r"all\.yaml: .*films: unknown key"):
        load_config(folder / "study.yaml")


def test_channels_of_one_file_share_a_field_of_view(folder: Path) -> None:
    listed = [entry("a/field_2.tif", name=f"c{i}", channel=i) for i in range(2)]
    found = resolve_movies([*listed, entry("a/field_10.tif")], folder)
    assert [movie.field for movie in found] == ["c0", "c0", "field_10"]
    apart = [entry("a/field_2.tif", name=f"c{i}", channel=i, field=f"own{i}") for i in range(2)]
    assert [movie.field for movie in resolve_movies(apart, folder)] == ["own0", "own1"]


def test_names_with_brackets_and_braces(tmp_path: Path) -> None:
    base = tmp_path / "plate [1]"
    base.mkdir()
    for name in ("a{1}.tif", "b.tif"):
        (base / name).touch()
    note = {"kind": "event_table", "path": "{stem}.csv"}
    found = resolve_movies([entry("*.tif", annotations=[note])], base)
    assert [movie.path.name for movie in found] == ["a{1}.tif", "b.tif"]
    assert found[0].annotations[0].path == base / "a{1}.csv"
    assert resolve_movies(found, Path.cwd()) == found
    assert [movie.path.name for movie in resolve_movies([entry("../*/b.tif")], base)] == ["b.tif"]


def test_a_collection_is_no_study(folder: Path) -> None:
    (folder / "study.yaml").write_text("collection: study.yaml\n")
    with pytest.raises(UserError, match=r"study\.yaml: .*collection: unknown key"):
        load_config(folder / "study.yaml")


def test_a_collection_lies_on_a_local_disk(folder: Path) -> None:
    (folder / "study.yaml").write_text("collection: memory://x/all.yaml\n")
    with pytest.raises(UserError, match="must be on a local disk"):
        load_config(folder / "study.yaml")


def test_merged_keys_are_taken_once(folder: Path) -> None:
    (folder / "study.yaml").write_text("crops: &c {size: 32, delta: 2}\nsimulate: {}\npretrain: {size: 32}\n")
    assert load_config(folder / "study.yaml").crops.size == 32
    text = "crops:\n  <<: {size: 32, delta: 2}\n  delta: 3\nsimulate: {}\n"
    (folder / "study.yaml").write_text(text)
    crops = load_config(folder / "study.yaml").crops
    assert (crops.size, crops.delta) == (32, 3)


@pytest.mark.parametrize(
    "text", ["? [a, b]\n: 1", "name: 2024-13-45", "name: !!int abc", "name: !!bool foo", "name: [", "a: !x 1"]
)
def test_odd_yaml_is_one_line(folder: Path, text: str) -> None:
    (folder / "study.yaml").write_text(text + "\n")
    with pytest.raises(UserError, match=r"study\.yaml: ") as raised:
        load_config(folder / "study.yaml")
    assert "<unicode string>" not in str(raised.value)


def test_a_key_that_is_there_twice_is_refused(folder: Path) -> None:
    (folder / "study.yaml").write_text("name: a\nsimulate: {}\nname: b\n")
    with pytest.raises(UserError, match="'name' is there twice") as raised:
        load_config(folder / "study.yaml")
    assert "\n" not in str(raised.value)
