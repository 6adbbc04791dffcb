"""The report on synthetic studies: what is written, what it says, and that it says so every time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from tapray.config import Init
from tapray.report import result_table, write_report
from tapray.report.figures import STYLES
from tapray.report.labels import front_table
from tapray.report.page import _verdict
from tapray.report.reliability import reliability_table
from tapray.report.tables import chosen_heads, compare, summarise, write_tables
from tests.report.conftest import SKILL

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def study(synthetic: Make) -> dict[str, Any]:
    return synthetic(budgets=(5, 10), seeds=3, n_test=400)


@pytest.fixture(scope="module")
def report(study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    written = write_report(folder, **study)
    assert sorted(written) == sorted(folder.iterdir())  # nothing else, nothing left over
    return folder


def text_of(folder: Path) -> str:
    """The page as a reader sees it, with Markdown's marks for code, bold and cells."""
    html = (folder / "report.html").read_text().partition("</nav>")[2]
    marks = {"li": "- ", "t[dh][^>]*": "| ", "/?code": "`", "/?strong": "**", "h2[^>]*": "## "}
    for tag, mark in marks.items():
        html = re.sub(f"<{tag}>", mark, html)
    return unescape(re.sub(r"<[^>]*>", "", re.sub(r"</t[dh]>\n(?=\|)", " ", html)))


def test_the_same_study_gives_the_same_bytes(study: dict[str, Any], report: Path, tmp_path: Path) -> None:
    shuffled = study | {"results": study["results"].sample(frac=1, random_state=0)}
    write_report(tmp_path, **shuffled)
    differing = [
        path.name for path in report.iterdir() if path.read_bytes() != (tmp_path / path.name).read_bytes()
    ]
    assert differing == []


def test_what_the_seeds_share_is_told(report: Path) -> None:
    assert "The seeds share encoders (`tap` 1, `random_default` 1)" in text_of(report)


def test_figures_are_pictures_with_their_numbers(report: Path) -> None:
    for name in ("label_budget", "fronts", "arrow"):
        with Image.open(report / f"{name}.png") as picture:
            assert min(picture.size) > 400
            assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 20
        assert "</svg>" in (report / f"{name}.svg").read_text()
        assert len(pd.read_csv(report / f"{name}.csv")) >= 8
    summary, curve = (pd.read_csv(report / f"{name}.csv") for name in ("summary", "label_budget"))
    pd.testing.assert_series_equal(curve["ap_test_high"], summary["ap_test_high"])


def test_results_table(study: dict[str, Any], report: Path) -> None:
    wanted = (
        "init,head,budget,budget_unit,seed,encoder,split,n_train,n_test,n_events_train,n_events_test,prevalence,"
        "arrow_accuracy,val_ap,ap,f1,precision_0,recall_0,precision_1,recall_1,precision_2,recall_2,"
        "balanced_accuracy,mcc,"
        "temperature,bias,ece_before,ece_after,ece_constant,nll_before,nll_after,brier_before,brier_after,"
        "precision_0_argmax,recall_0_argmax,precision_1_argmax,recall_1_argmax,precision_2_argmax,"
        "recall_2_argmax,leaky"
    )
    assert (report / "results.csv").read_text().split("\n")[0] == wanted
    table = pd.read_csv(report / "results.csv")
    assert len(table) == len(study["results"]) == 3 * 2 * 2 * 3
    assert list(dict.fromkeys(table["init"])) == ["tap", "random_default", "end_to_end"]
    row = study["results"].query("init == 'tap' and head == 'linear' and budget == 5 and seed == 1").iloc[0]
    found = table.query("init == 'tap' and head == 'linear' and budget == 5 and seed == 1").iloc[0]
    assert found["ap"] == float(f"{row['ap']:.6g}")
    assert found["bias"] == float(f"{row['bias'][1]:.6g}")
    assert table["precision_2"].isna().all()


def test_three_classes_have_two_biases(study: dict[str, Any], tmp_path: Path) -> None:
    biases = [(0.0, 1 / 3, -2.0)] * len(study["results"])
    write_tables(tmp_path, study["results"].assign(bias=biases), study["trials"])
    assert set(pd.read_csv(tmp_path / "results.csv")["bias"]) == {"0.333333;-2"}


def test_trials_keep_their_hyperparameters(report: Path) -> None:
    first = (report / "trials.csv").read_text().split("\n")[:2]
    assert first[0] == "init,head,budget,trial,status,val_ap,lr,val_ece"
    assert first[1].startswith("tap,linear,5,0,done,0.9")


def test_summary_is_over_seeds(study: dict[str, Any]) -> None:
    summary = summarise(study["results"])
    values = study["results"].query("init == 'tap' and head == 'pooled' and budget == 10")["ap"].to_numpy()
    row = summary.query("init == 'tap' and head == 'pooled' and budget == 10").iloc[0]
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3)  # Student t, 2 degrees of freedom
    assert row["n_seeds"] == 3
    found = [row[f"ap_{part}"] for part in ("mean", "std", "low", "high")]
    assert found == pytest.approx(
        [values.mean(), values.std(ddof=1), values.mean() - half, values.mean() + half]
    )
    mixed = study["results"].assign(split=["movie", "tile"] * (len(study["results"]) // 2))
    with pytest.raises(ValueError, match="several splits"):
        summarise(mixed)


def test_comparisons_pair_the_seeds_and_choose_heads_on_validation(study: dict[str, Any]) -> None:
    results, trials = study["results"], study["trials"].copy()
    trials.loc[(trials["init"] == "tap") & (trials["head"] == "linear"), "val_ap"] = 0.99
    assert chosen_heads(trials)["tap", 5] == "linear"
    assert chosen_heads(trials)["end_to_end", 5] == "pooled"
    table = compare(results.drop(results.query("init == 'tap' and seed == 2").index), trials)
    row = table.query("budget == 5 and head == 'best' and other == 'end_to_end' and metric == 'ap'").iloc[0]
    assert (row["head_tap"], row["head_other"], row["n_seeds"]) == ("linear", "pooled", 2)
    early = results[(results["budget"] == 5) & (results["seed"] < 2)]
    cells = early.set_index(["init", "head", "seed"])["ap"].sort_index()
    difference = cells["tap", "linear"] - cells["end_to_end", "pooled"]
    half = 12.7062 * difference.std(ddof=1) / np.sqrt(2)
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["high"] - row["difference"] == pytest.approx(half, rel=1e-5)
    assert set(table["head"]) == {"linear", "pooled", "best"}
    assert set(compare(results, trials.iloc[:0])["head"]) == {"linear", "pooled"}
    assert compare(results[results["init"] != "tap"], trials).empty


def test_reliability_is_of_the_same_ece_as_the_table(study: dict[str, Any]) -> None:
    cell = ("tap", "pooled", 10)
    runs = [run for key, run in study["predictions"].items() if key[:3] == cell]
    rows = study["results"].query("init == 'tap' and head == 'pooled' and budget == 10")
    for calibrated, column in ((False, "ece_before"), (True, "ece_after")):
        table, ece = reliability_table(runs, calibrated, np.random.default_rng(0))
        assert ece.startswith(f"{rows[column].mean():.3f} [")
        assert table["crops_per_seed"].sum() == pytest.approx(400)
        filled = table[table["crops_per_seed"] > 0]
        assert (filled["probability"] >= filled["bin_low"]).all()
        assert (filled["probability"] <= filled["bin_high"]).all()
        assert (table["event_share"].fillna(0) * table["crops_per_seed"]).sum() == pytest.approx(
            runs[0]["labels"].sum()
        )
        assert (filled["low"] <= filled["high"]).all()


def test_the_page_states_claims_with_both_intervals(report: Path) -> None:
    page = text_of(report)
    pairs = pd.read_csv(report / "test_differences.csv")
    assert set(pairs["metric"]) == {"ap", "f1"}
    row = pairs.query("budget == 5 and head == 'best' and other == 'end_to_end' and metric == 'ap'").iloc[0]
    assert row["low"] > 0
    claim = next(
        line for line in page.splitlines() if line.startswith("- At 5 events") and "end_to_end" in line
    )
    assert f"{_verdict(row)} `end_to_end` ({row['head_other']} head, AP {row['mean_other']:.3f})" in claim
    interval = f"{row['difference']:+.3f} [{row['test_low']:+.3f}, {row['test_high']:+.3f}]"
    assert f"{interval} AP over 3 seeds and the test set, p = {row['p_holm']:.2g}." in claim
    assert row["test_low"] < row["difference"] < row["test_high"]
    assert row["p"] <= row["p_holm"] <= min(1, 4.001 * row["p"])  # budgets, other arms
    assert "corrected for the 4 comparisons of this list" in page
    assert "7 whole fields of view or blocks of time (so few that these intervals are too narrow)" in page
    assert "Labelled events: 40 of training, from which budgets are drawn, 9 of validation and 8" in page
    assert "share most of them" not in page  # 10 of 40
    assert "| share that overlaps a training crop | 0" in page
    assert "validation crops, " in page.partition("## Calibration")[2]
    assert "LEAKY" not in page
    assert "WARNING" not in page
    html = (report / "report.html").read_text()
    assert all(f'href="{path.name}"' in html for path in report.iterdir() if path.suffix != ".html")


def test_a_verdict_needs_more_than_these_seeds() -> None:
    sure = {"difference": 0.2, "low": 0.1, "high": 0.3, "p_holm": 0.01}
    verdicts = {
        "beats": sure,
        "is beaten by": {"difference": -0.2, "low": -0.3, "high": -0.1, "p_holm": 0.049},
        "is ahead of (in these runs": sure | {"p_holm": 0.05},
        "is behind (in these runs": {"difference": -0.2, "low": -0.3, "high": -0.1, "p_holm": 0.5},
        "is not told apart from": {"difference": 0.2, "low": -0.1, "high": 0.5, "p_holm": 0.2},
    }
    for verdict, row in verdicts.items():
        assert _verdict(pd.Series(row)).startswith(verdict)


def test_the_page_says_how_many_labels_are_needed(study: dict[str, Any], report: Path) -> None:
    needed, saved = (pd.read_csv(report / f"{name}.csv") for name in ("labels_needed", "label_efficiency"))
    assert set(needed["init"]) == {"tap", "random_default", "end_to_end"}
    assert sorted(needed["target"].unique()) == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert (needed["low"] <= needed["high"]).all()
    runs = study["results"].query("init == 'tap' and head == 'pooled'").groupby("budget")["f1"].mean()
    for _, row in needed.query("init == 'tap' and head == 'pooled'").iterrows():
        reached = runs.max() >= row["target"]
        assert np.isfinite(row["needed"]) == reached
    assert set(saved["other"]) == {"random_default", "end_to_end"}
    assert (
        saved["ratio"] >= saved["budget"].map({5: 1, 10: 0.5})
    ).all()  # what others need is a budget of 5 at least
    page = text_of(report)
    assert "## How many labels" in page
    assert "What `tap` saves" in page


def test_the_front_is_of_trials_within_a_budget_and_of_arms_over_budgets(study: dict[str, Any]) -> None:
    table = front_table(study["results"], study["trials"])
    trials, arms = (table[table["what"] == what] for what in ("trial", "arm"))
    assert len(trials) == len(study["trials"])
    assert trials.groupby("budget")["on_front"].any().all()
    best = arms.loc[arms["ap"].idxmax()]
    assert best["on_front"]
    assert (arms["cost"] == arms["budget"]).all()
    cheapest = arms[arms["budget"] == 5]
    assert cheapest["on_front"].sum() == 1
    assert cheapest.loc[cheapest["on_front"], "ap"].item() == cheapest["ap"].max()


def test_every_arm_has_a_look_of_its_own(synthetic: Make, tmp_path: Path) -> None:
    every = synthetic(inits=[*SKILL], heads=("pooled",), budgets=(5, 10), seeds=2, n_test=200)
    write_report(tmp_path, **every)
    looks = list(STYLES.values())
    assert set(STYLES) == set(Init)
    for part in range(3):
        assert len({str(look[part]) for look in looks}) == len(looks)


def test_the_page_warns(synthetic: Make, tmp_path: Path) -> None:
    """A leaky split, an arrow that was not found, and arms that do not differ are all called so."""
    poor = synthetic(
        inits=("tap", "fine_tune"),
        heads=("linear",),
        budgets=(5,),
        n_test=300,
        arrow=0.51,
        split="random_crop",
    )
    counts = {"train/0": 90, "train/1": 7, "train/2": 3, "val/0": 31, "test/0": 290, "test/1": 10}
    write_report(
        tmp_path, **poor | {"events": {"train": 7, "val": 9, "test": 8}}, name="night_4", counts=counts
    )
    page = text_of(tmp_path)
    assert "Draws of 5 of 7 events share most of them" in page
    assert "<h1>night_4: cell events from few labels</h1>" in (tmp_path / "report.html").read_text()
    assert "| labelled crops | none | division | death" in page
    assert "| train | 90 | 7 | 3" in page
    assert "**LEAKY: test crops overlap training crops" in page
    assert "WARNING: the arrow accuracy has not left 0.5" in page
    assert "is not told apart from `fine_tune`" in page
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(result_table(pd.read_csv(tmp_path / "summary.csv")))
    assert "split by random_crop LEAKY" in console.export_text()


def test_a_study_without_pretraining(synthetic: Make, tmp_path: Path) -> None:
    plain = synthetic(
        inits=("random_default",), heads=("linear",), budgets=(5,), seeds=2, n_test=300, arrow=float("nan")
    )
    written = write_report(tmp_path, **(plain | {"history": []}))
    page = text_of(tmp_path)
    assert "No arm of this study has the pretrained encoder" in page
    assert "not among the runs" in page
    assert "arrow.png" not in {path.name for path in written}


def test_predictions_of_other_crops_are_refused(study: dict[str, Any], tmp_path: Path) -> None:
    key = ("tap", "pooled", 5, 0)
    other = study["predictions"][key] | {"labels": 1 - study["predictions"][key]["labels"]}
    with pytest.raises(ValueError, match="same test crops"):
        write_report(tmp_path, **(study | {"predictions": study["predictions"] | {key: other}}))


def test_the_printed_table_fits_a_terminal(report: Path) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    summary = pd.read_csv(report / "summary.csv")
    console.print(result_table(summary))
    text = console.export_text()
    row = summary.query("init == 'random_default' and head == 'linear' and budget == 10").iloc[0]
    line = next(line for line in text.splitlines() if line.split()[:3] == ["random_default", "linear", "10"])
    shown = f"{row['ap_mean']:.3f} [{row['ap_test_low']:.2f}, {row['ap_test_high']:.2f}]"
    assert line.split()[3:6] == shown.split()
    assert "…" not in text
    assert "Arrow accuracy 0.730" in " ".join(text.split())
    assert len(re.findall(r" \[-?\d\.\d\d, \d\.\d\d\] ", text)) == len(summary)
