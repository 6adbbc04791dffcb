"""Variants of a study: what differs from the rest of the file, each with a folder and a name of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tapray.configfile import load_config, load_variants
from tapray.errors import UserError
from tapray.report.variants import published_table, to_latex, to_markdown
from tests.conftest import TINY
from tests.test_cli import tapray

STUDY: dict[str, Any] = {
    "name": "paper",
    "simulate": {"frames": 20},
    "split": {"kind": "movie", "fractions": [0.5, 0.25, 0.25]},
    "variants": {
        "leak_free": None,
        "leaky": {"split": {"kind": "random_crop", "allow_leak": True}},
        "area_40": {"crops": {"area_threshold": 40}},
    },
}


def written(folder: Path, data: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def test_a_variant_differs_in_what_it_names(tmp_path: Path) -> None:
    found = load_variants(written(tmp_path, STUDY))
    assert [*found] == ["leak_free", "leaky", "area_40"]
    leaky = found["leaky"]
    assert (leaky.name, leaky.out) == ("paper-leaky", Path("runs/paper/leaky"))
    assert leaky.split.fractions == (0.5, 0.25, 0.25)  # of the rest of the file
    assert leaky.split.allow_leak
    assert found["area_40"].crops.area_threshold == 40
    assert found["leak_free"].split == found["area_40"].split
    assert load_variants(written(tmp_path, STUDY), tmp_path)["leaky"].out == tmp_path / "leaky"


def test_a_study_without_variants_is_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, {key: STUDY[key] for key in ("name", "simulate")})
    assert load_variants(path) == {"": load_config(path)}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": {"crop": {}}}, "variant a: crop: unknown key"),
        ({"a": {"crops": {"size": 1}}}, "variant a: crops.size"),
        ({"a b": {}}, "variant a b: name"),
        ({"a": 3}, "variants: is not a mapping"),
        ([1], "variants: is not a mapping"),
    ],
)
def test_a_faulty_variant_is_one_line(tmp_path: Path, variants: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_variants(written(tmp_path, {**STUDY, "variants": variants}))
    assert "\n" not in str(raised.value)


def test_one_job_is_not_several(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a study of 3 variants"):
        load_config(written(tmp_path, STUDY))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Run folders of a leak-free and a leaky split, the latter better by 0.1."""
    made = []
    for split, gain in (("movie", 0.0), ("random_crop", 0.1)):
        rows = [
            {
                **{"init": init, "head": "linear", "budget": 10, "seed": seed, "split": split},
                "prevalence": 0.03 if split == "movie" else 0.05,
                **{"leaky": split == "random_crop", "precision_0": 0.9, "recall_0": 0.8},
                **{"precision_1": 0.5 + 0.01 * seed + gain, "recall_1": 0.6, "ap": 0.5 + 0.01 * seed + gain},
                **{"f1": 0.4 + 0.02 * seed + gain, "mcc": 0.3 + 0.01 * seed + gain, "precision_2": None},
                "recall_2": None,
                **{f"{name}_argmax": 0.25 for name in ("precision_0", "recall_0", "precision_1", "recall_1")},
                **{f"{name}_argmax": None for name in ("precision_2", "recall_2")},
            }
            for init in ("tap", "end_to_end")
            for seed in range(3)
        ]
        folder = tmp_path / split
        (folder / "report").mkdir(parents=True)
        pd.DataFrame(rows).to_csv(folder / "report" / "results.csv", index=False)
        (folder / "config.yaml").write_text(yaml.safe_dump({"crops": {"size": 48, "area_threshold": 0}}))
        made.append(folder)
    return made


def test_the_published_table_has_mean_and_deviation_of_each_class(folders: list[Path]) -> None:
    table = published_table(folders)
    assert len(table) == 8
    published, row = (
        table.query(f"split == 'movie' and init == 'tap' and decision == '{decision}'").iloc[0]
        for decision in ("argmax", "threshold")
    )
    assert (published["precision_1_mean"], published["precision_1_std"]) == (0.25, 0.0)
    assert (row["crop_size"], row["area_threshold"], row["n_seeds"]) == (48, 0, 3)
    assert (row["precision_1_mean"], row["precision_1_std"]) == pytest.approx((0.51, 0.01))
    assert not [name for name in table if name.startswith("precision_2")]
    markdown, latex = to_markdown(table), to_latex(table)
    assert "| random_crop (leaky) | 48 | 0 | linear | 10 | tap | argmax | 3 |" in markdown
    assert "0.510 ± 0.010" in markdown
    assert r"random\_crop (leaky) & 48" in latex
    assert r"0.510 $\pm$ 0.010" in latex
    assert latex.count(r"\\") == 9


def test_variants_that_no_column_tells_apart_are_named(folders: list[Path]) -> None:
    other = folders[0].with_name("longer")
    shutil.copytree(folders[0], other)
    table = published_table([*folders, other])
    assert table["variant"].tolist().count("longer") == 4
    assert table["n_seeds"].tolist() == [3] * 12
    assert "| longer | movie | 48 |" in to_markdown(table)
    assert to_latex(table).startswith(r"\begin{tabular}{llllllllr")


@pytest.mark.slow
def test_a_study_of_variants_runs_them_all_and_compares_them(
    tiny_job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One leaves the other's pretraining and features to the cache; one embeds whole frames."""
    data = {key: dict(own) if isinstance(own, dict) else own for key, own in TINY.items()}
    data["study"] |= {"inits": ["tap"], "trials": 1}
    data["cache"] = {"folder": str(tiny_job.parent / "cache")}
    leaky = {"split": {"kind": "random_crop", "allow_leak": True}}
    weights = {"pretrain": {"weights": str(tiny_job / "pretrain" / "model")}}
    data["variants"] = {
        "free": {"crops": {"features": "frame"}},
        "leaky": {**leaky, **weights},
    }
    path = written(tmp_path, data)
    assert tapray("report", path, "--out", tmp_path / "runs", "--tables", "--progress", "json") == 0
    shown = capsys.readouterr().out
    assert "| movie | 32 | 0 | linear | 2 | tap | argmax | 2 |" in shown
    assert "| random_crop (leaky) | 32 | 0 | linear | 2 | tap | threshold | 2 |" in shown
    assert not (tmp_path / "runs" / "free" / "pretrain" / "checkpoints").exists()
    inflation = pd.read_csv(tmp_path / "runs" / "tables" / "inflation.csv")
    assert set(inflation["metric"]) == {"ap", "f1"}
    differences = pd.read_csv(tmp_path / "runs" / "tables" / "differences.csv")
    assert set(differences["variant"]) == {"leaky"}
    assert (inflation["inflation"] == differences["difference"]).all()
    assert not differences["paired"].any()  # other test crops
    model = tmp_path / "runs" / "free" / "model"
    movie = tiny_job / "simulate" / "movies" / "field_3.tif"
    assert tapray("predict", model, movie, "--out", tmp_path / "found", "--progress", "quiet") == 0
    assert (tmp_path / "found" / "field_3_events.csv").exists()
