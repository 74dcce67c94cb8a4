from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from predicting import predicting
from simulated import Noise, study, worse

from cemobam_core import InputError
from study import load_results
from study.commands import cemobam
from study.findings.results import Results
from study.output.compare import compare

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def results() -> Results:
    return study(np.random.default_rng(0), Noise(), size=(3, 2), variants=worse(1.0))


def test_what_is_saved_is_read_again_to_the_last_bit(results: Results, tmp_path: Path) -> None:
    assert [path.name for path in results.save(tmp_path)] == ["trials.csv", "study.json"]
    again = load_results(tmp_path)
    assert again.about == results.about
    told = ["reason", "log"]  # empty, which a csv cannot tell from missing
    pd.testing.assert_frame_equal(again.trials.drop(columns=told), results.trials.drop(columns=told), rtol=0)
    pd.testing.assert_frame_equal(again.grid, results.grid, rtol=0)
    assert again.fusion["fusion"].tolist() == ["cls", "min", "max", "mean"]
    assert again.ablation["modules"].tolist() == ["full", "no_xcbam", "no_chgat"]
    by_hand = results.trials_of("grid").groupby(["k_audio", "k_text"])["test_ua"].mean()
    assert again.grid["test_ua_mean"].tolist() == pytest.approx(by_hand.tolist())
    assert (again.grid["test_ua_low"] < again.grid["test_ua_mean"]).all()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("study.json", None, "because it has no study.json"),
        ("trials.csv", None, "because it has no trials.csv"),
        ("study.json", "{", "study.json: this file is not as a study writes it"),
        ("study.json", "[]", "study.json: this file is not as a study writes it"),
        ("study.json", {"seeds": ["a"]}, "study.json: this file is not as a study writes it"),
        ("study.json", {"folds": "2"}, "study.json: this file is not as a study writes it"),
        ("study.json", {"pair": [1]}, "study.json: this file is not as a study writes it"),
        ("study.json", {"settings": 3}, "study.json: this file is not as a study writes it"),
        ("trials.csv", "", "trials.csv: cannot be read as csv"),
        ("trials.csv", "a,b\n1,2\n", "trials.csv: has no column 'dataset'"),
        ("trials.csv", "seed", "trials.csv: column 'seed' has a value that is not a number"),
    ],
)
def test_a_folder_that_is_no_studys_is_refused(
    results: Results, tmp_path: Path, file: str, content: object, message: str
) -> None:
    results.save(tmp_path)
    path = tmp_path / file
    if content is None:
        path.unlink()
    elif isinstance(content, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    elif content == "seed":
        pd.read_csv(path).assign(seed="x").to_csv(path, index=False)
    else:
        path.write_text(str(content))
    with pytest.raises(InputError, match=re.escape(message)):
        load_results(tmp_path)


def test_studies_stand_side_by_side(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = study(np.random.default_rng(1), Noise(), size=(3, 2), variants=worse(1.0), seeds=3)
    other = Results(about=replace(other.about, profile="released", title="x|y"), trials=other.trials)
    results.save(tmp_path / "one")
    other.save(tmp_path / "two")
    folders = [str(tmp_path / name) for name in ("one", "two")]
    assert cemobam(["compare", *folders, "--to", str(tmp_path / "both")]) == 0
    printed = capsys.readouterr().out
    assert "sim 1" in printed
    assert "seeds 3" in printed
    frame = pd.read_csv(tmp_path / "both/compare_fusion.csv")
    assert len(frame) == 8
    ours = frame[(frame["study"] == "sim 1") & (frame["fusion"] == "max")].iloc[0]
    expected = results.fusion.set_index("fusion").loc["max", "test_wa_mean"]
    assert ours["wa_mean"] == pytest.approx(100 * expected, rel=1e-5)
    assert set(frame.loc[frame["study"] == "sim 2", "n_seeds"]) == {3}
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        f"{name}.{form}"
        for name in ("compare", "compare_fusion", "compare_ablation", "compare_claims")
        for form in ("csv", "md", "tex")
    } | {"compare_topk.png", "compare_topk.pdf"}
    for wrong in ([folders[0]], [folders[0], folders[0]], [folders[0], str(tmp_path)]):
        assert cemobam(["compare", *wrong]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("cemobam compare: error: ")


def test_studies_that_only_have_a_grid_compare_too() -> None:
    names = [table.name for table in compare({"a": study(np.random.default_rng(0), Noise(), size=(2, 2))})]
    assert names == ["compare", "compare_claims"]


def test_the_example_of_the_documentation_runs(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predicting(results).save(tmp_path / "results/demo")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/report.md").read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/report.md", "exec"), names)
    assert "test_wa_mean" in capsys.readouterr().out
    assert (tmp_path / "my_figure.png").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [0, 0, 1]}, "a seed or a class is listed twice"),
        ({"class_names": ["a", "a"]}, "a seed or a class is listed twice"),
        ({"folds": 0}, "folds and K must be at least 1"),
        ({"pair": [0, 2]}, "folds and K must be at least 1"),
        ({"title": "\ud800"}, "title must not be"),
        ({"name": "a\nb"}, "name must not be"),
    ],
)
def test_a_study_json_that_no_study_wrote(
    results: Results, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    results.save(tmp_path)
    path = tmp_path / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        load_results(tmp_path)


def of_fusion(about: dict[str, Any]) -> dict[str, Any]:
    """Return the block fusion of a study.json."""
    return next(block for block in about["blocks"] if block["name"] == "fusion")


def block_changed(**changes: object) -> Callable[[dict[str, Any]], None]:
    """Return a function that changes the block fusion of a study.json."""

    def change(about: dict[str, Any]) -> None:
        of_fusion(about).update(changes)

    return change


def first_row(row: object) -> Callable[[dict[str, Any]], None]:
    """Return a function that replaces the first row of the block fusion."""

    def change(about: dict[str, Any]) -> None:
        of_fusion(about)["rows"][0] = row

    return change


@pytest.mark.parametrize(
    "change",
    [
        block_changed(rows=3),
        block_changed(rows=[]),
        block_changed(rows=[[]]),
        block_changed(columns=["k_audio", "nowhere"]),
        block_changed(columns="fusion"),
        block_changed(columns=[]),
        block_changed(reference=4),
        block_changed(reference=-1),
        block_changed(reference="min"),
        block_changed(reference=True),
        block_changed(labels=[]),
        block_changed(labels={"min": 3}),
        block_changed(chooses="yes"),
        block_changed(title="\x1b[31m"),
        block_changed(name="grid"),
        block_changed(name="../grid"),
        block_changed(table="../../x"),
        block_changed(file="/etc/passwd"),
        block_changed(drawing=None),
        first_row(["paper", "cemobam", 1, 1, "min"]),
        first_row(["paper", "cemobam", 1, 1, "min", "full", "more"]),
        first_row(["paper", "cemobam", 0, 1, "min", "full"]),
        first_row(["paper", "cemobam", "1", 1, "min", "full"]),
        first_row(["paper", "cemobam", 1.5, 1, "min", "full"]),
        first_row(["paper", "cemobam", True, 1, "min", "full"]),
        first_row(["paper", "cemobam", 1, 1, ["min"], "full"]),
        first_row(["paper", "cemobam", 1, 1, {"a": 1}, "full"]),
        first_row(["paper", "cemobam", 10**400, 1, "min", "full"]),
        first_row(["paper", "cemobam", 1, 1, "a\nb", "full"]),
        first_row("paper"),
        lambda about: of_fusion(about)["rows"].append(of_fusion(about)["rows"][0]),
        lambda about: about["blocks"].append(of_fusion(about)),
        lambda about: of_fusion(about).pop("labels"),
        block_changed(n_seeds=[5, 5, 5]),
        block_changed(n_seeds=[5, 5, 5, 6]),
        block_changed(n_seeds=[5, 5, 5, -1]),
        block_changed(seeds=[5, 6, 7, 8, 8]),
        block_changed(confirms=1),
        block_changed(decided_by="luck"),
        block_changed(compared=None),
        lambda about: (about.update(looks=True), of_fusion(about).update(n_seeds=[5, 5, 5, 3])),
        lambda about: about.update(looks="yes"),
        lambda about: about.update(rope=0.0),
        lambda about: about.update(rope=100.0),
        lambda about: about.update(rope="1"),
        lambda about: about.update(confirm=[4]),
        lambda about: about.pop("confirm"),
        lambda about: about.update(blocks={}),
        lambda about: about.update(blocks=[3]),
        lambda about: about.update(identity=[]),
        lambda about: about.update(identity=about["identity"][:-1]),
        lambda about: about.update(identity=[*about["identity"], "fusion"]),
        lambda about: about.update(base=[]),
        lambda about: about.update(base=None),
        lambda about: about.update(pair_from="dreamt"),
        lambda about: about.update(select_on="train"),
        lambda about: about.update(select_by="rank"),
        lambda about: about.update(seeds=[10**30] * 2),
        lambda about: about.update(settings={"epochs": [1]}),
        lambda about: about.update(name="../x"),
    ],
)
def test_a_study_json_that_was_tampered_with_is_refused_in_a_line(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], object]
) -> None:
    results.save(tmp_path / "a")
    results.save(tmp_path / "b")
    path = tmp_path / "a" / "study.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))
    assert cemobam(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("; make it again with --report-only")
    assert len(line) < 500


def test_a_study_json_of_brackets(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    (tmp_path / "study.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="this file is not as a study writes it"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test_wa": np.nan}, "row 5 is done, but "),
        ({"val_ua": np.inf}, "row 5 is done, but "),
        ({"status": "weird"}, "row 5 has status 'weird'"),
        ({"fusion": "sum"}, r"row 5 does not belong to any block of study.json \(.*fusion 'sum'"),
    ],
)
def test_rows_that_no_study_wrote(results: Results, tmp_path: Path, change: dict[str, object], said: str) -> None:
    """A mean is never silently over fewer seeds."""
    trials = results.trials.copy()
    for column, value in change.items():
        trials.loc[trials.index[3], column] = value
    Results(about=results.about, trials=trials).save(tmp_path)
    with pytest.raises(InputError, match=said):
        load_results(tmp_path)


def test_a_grid_that_fills_the_memory_is_refused(results: Results, tmp_path: Path) -> None:
    """With 5 seeds and 2,000 values of each K, its array of metrics takes 4 GB."""
    results.save(tmp_path)
    about = json.loads((tmp_path / "study.json").read_text())
    grid = next(block for block in about["blocks"] if block["chooses"])
    places = [about["identity"].index(name) for name in ("k_audio", "k_text")]
    more = [[k if i in places else x for i, x in enumerate(grid["rows"][0])] for k in range(10, 2010)]
    grid["rows"] += more
    grid["n_seeds"] += [1] * len(more)
    grid["transductive"] += [False] * len(more)
    (tmp_path / "study.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"study\.json: .*the grid of K has \d+ cells, more than 1000000"):
        load_results(tmp_path)


@pytest.mark.parametrize("name", ["study.json", "trials.csv", "predictions.npz", "utterances.csv"])
def test_a_pipe_is_not_waited_for(results: Results, tmp_path: Path, name: str) -> None:
    predicting(results).save(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: is a pipe; give a regular file"):
        load_results(tmp_path)


@pytest.mark.parametrize("values", [[1.5], [-0.1], [1e300]])
def test_metrics_that_are_no_shares(results: Results, tmp_path: Path, values: list[float]) -> None:
    trials = results.trials.copy()
    trials.loc[trials.index[3], "test_wa"] = values[0]
    Results(about=results.about, trials=trials).save(tmp_path)
    with pytest.raises(InputError, match=r"row 5 is done, but test_wa is .*; it must be from 0 to 1"):
        load_results(tmp_path)


def test_a_table_of_many_columns_is_refused(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    (tmp_path / "trials.csv").write_text(",".join(f"c{i}" for i in range(200_000)))
    with pytest.raises(InputError, match=r"trials\.csv: its head is longer than any study writes"):
        load_results(tmp_path)


def test_a_row_that_stands_twice(results: Results, tmp_path: Path) -> None:
    Results(about=results.about, trials=pd.concat([results.trials, results.trials.iloc[:1]])).save(tmp_path)
    with pytest.raises(InputError, match="is the same trial as another"):
        load_results(tmp_path)


def test_compare_leaves_nothing_of_an_earlier_command(results: Results, tmp_path: Path) -> None:
    for name in ("one", "my_study"):
        about = replace(results.about, name=name)
        Results(about=about, trials=results.trials).save(tmp_path / name)
    arguments = ["compare", str(tmp_path / "one"), str(tmp_path / "my_study"), "--to", str(tmp_path / "to")]
    assert cemobam(arguments) == 0
    assert r"\multicolumn{4}{c}{my\_study}" in (tmp_path / "to" / "compare_fusion.tex").read_text()
    stale = tmp_path / "to" / "compare_old.tex"
    stale.write_text("of an earlier command")
    assert cemobam(arguments) == 0
    assert not stale.exists()
