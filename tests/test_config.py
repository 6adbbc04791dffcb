"""The configuration: strict, and the same from YAML and Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapray.config import HeadKind, Init, JobConfig, SamplerKind, SplitKind
from tapray.configfile import load_config, parse_config
from tapray.errors import UserError
from tapray.sending import sent_study

MOVIE = {"name": "a", "path": "a.tif", "annotations": [{"kind": "event_table", "path": "a.csv"}]}


def subsets(kinds: type[Any]) -> st.SearchStrategy[list[str]]:
    own = [kind.value for kind in kinds if kind is not Init.IMAGENET]  # which needs a file
    return st.lists(st.sampled_from(own), min_size=1, unique=True).filter(lambda some: some != ["difference"])


studies = st.fixed_dictionaries(
    {"simulate": st.fixed_dictionaries({}, optional={"frames": st.integers(2, 500)})},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,11}", fullmatch=True),
        "seed": st.integers(0, 2**31 - 1),
        "crops": st.fixed_dictionaries({}, optional={"size": st.integers(8, 200), "classes": st.just(3)}),
        "split": st.fixed_dictionaries(
            {},
            optional={
                "kind": st.sampled_from([kind.value for kind in SplitKind]),
                "order": st.permutations(["train", "val", "test"]),
            },
        ),
        "pretrain": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.floats(1e-6, 1),
                "sampler": st.sampled_from([kind.value for kind in SamplerKind]),
            },
        ),
        "study": st.fixed_dictionaries(
            {},
            optional={
                "inits": subsets(Init),
                "heads": subsets(HeadKind),
                "budgets": st.lists(st.integers(1, 50), min_size=1, unique=True),
            },
        ),
    },
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=studies)
def test_yaml_and_python_give_the_same(data: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(data))
    config = parse_config(data)
    out = Path("runs") / config.name
    assert load_config(path) == config.model_copy(update={"out": out}) == JobConfig(**data, out=out)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))  # written out in full
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("faulty", "key", "says"),
    [
        ({"speed": 1}, "speed", "unknown key"),
        ({"crops": {"sise": 48}}, "crops.sise", "unknown key"),
        ({"crops": {"size": 4}}, "crops.size", "greater than or equal to 8"),
        ({"study": {"inits": ["tap", "magic"]}}, "study.inits.1", "'tap'"),
        ({"study": {"budgets": []}}, "study.budgets", "at least 1"),
        ({"split": {"fractions": [0.5, 0.5, 0.5]}}, "split", "sum to 1"),
        ({"split": {"order": ["train", "test", "test"]}}, "split", "once each"),
        ({"name": "../up"}, "name", "pattern"),
        ({"movies": [MOVIE]}, "", "one of 'movies', 'collection' and 'simulate'"),
        ({"simulate": None}, "", "one of 'movies', 'collection' and 'simulate'"),
    ],
)
def test_faults_are_one_line_that_names_the_key(
    faulty: dict[str, Any], key: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"simulate": {}, **faulty}))
    with pytest.raises(UserError) as raised:
        load_config(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: {key}")
    assert says in message


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a: [1", "not valid YAML"), (b"- 1", "mapping"), (b"", "mapping"), (b"\xff\xfe\x00", "text")],
)
def test_what_is_no_configuration(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


def test_a_run_folder_is_no_address(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: a\nsimulate: {}\n")
    with pytest.raises(UserError, match=r"out: s3:/bucket/run: is an address, not a folder"):
        load_config(path, Path("s3://bucket/run"))
    path.write_text("name: a\nsimulate: {}\nout: s3://bucket/run\n")
    with pytest.raises(UserError, match="name a folder, and the address as 'mirror'"):
        load_config(path)


def test_a_run_folder_may_be_written_as_a_file_address(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: a\nsimulate: {}\nout: file:///mnt/runs/a\n")
    assert load_config(path).out == Path("/mnt/runs/a")
    assert load_config(path, Path("file:///mnt/runs/b")).out == Path("/mnt/runs/b")
    assert sent_study(path)[1] == Path("/mnt/runs/a")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "study.yaml"
    path.parent.mkdir()
    absolute = {**MOVIE, "name": "b", "path": "/data/b.tif"}
    path.write_text(yaml.safe_dump({"name": "real", "movies": [MOVIE, absolute]}))
    config = load_config(path)
    assert [movie.path for movie in config.movies] == [path.parent / "a.tif", Path("/data/b.tif")]
    assert config.movies[0].annotations[0].path == path.parent / "a.csv"
    assert config.out == Path("runs/real")
    assert load_config(path, Path("elsewhere")).out == Path("elsewhere")


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"study": {"heads": []}}, "study.heads"),
        ({"study": {"inits": []}}, "study.inits"),
        ({"study": {"budgets": [0]}}, "budgets must be at least 1"),
        ({"study": {"budgets": [5, 5]}}, "budgets names one twice"),
        ({"study": {"inits": ["tap", "tap"]}}, "inits names one twice"),
        ({"study": {"sampler": "tpe", "trials": 8}}, "no trial is left to learn from others"),
        ({"study": {"fixed": {"learning_rate": 1e-3}}}, "learning_rate is searched and fixed"),
        ({"study": {"fixed": {"layer": "stem"}}}, "fixed.layer: give one of projection, backbone"),
        ({"study": {"fixed": {"width": "wide"}}}, "fixed.width: give a number"),
        ({"study": {"search": ["temperature"]}}, "temperature changes no average precision"),
        ({"study": {"halving": 3, "together": 2}}, "none is left out"),
        ({"pretrain": {"learning_rate": float("inf")}}, "pretrain.learning_rate"),
        ({"split": {"fractions": [float("nan")] * 3}}, "split.fractions"),
        ({"pretrain": {"include": []}}, "pretrain.include"),
        ({"seed": 10**33}, "seed"),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_runs(section: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse_config({"simulate": {}, **section})
