from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
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
    pd.testing.assert_frame_equal(again.trials.drop(columns="reason"), results.trials.drop(columns="reason"), rtol=0)
    pd.testing.assert_frame_equal(again.grid, results.grid, rtol=0)
    assert again.fusion["fusion"].tolist() == ["cls", "min", "max", "mean"]
    assert again.ablation["modules"].tolist() == ["full", "no_xcbam", "no_chgat"]
    assert again.gaps["profile"].tolist() == ["paper"]
    by_hand = results.grid_trials.groupby(["k_audio", "k_text"])["test_ua"].mean()
    assert again.grid["test_ua_mean"].tolist() == pytest.approx(by_hand.tolist())
    assert (again.grid["test_ua_low"] < again.grid["test_ua_mean"]).all()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("study.json", None, "there is no study.json in it"),
        ("trials.csv", None, "there is no trials.csv in it"),
        ("study.json", "{", "study.json: is not what a study writes there"),
        ("study.json", "[]", "study.json: is not what a study writes there"),
        ("study.json", {"seeds": ["a"]}, "study.json: is not what a study writes there"),
        ("study.json", {"folds": "2"}, "study.json: is not what a study writes there"),
        ("study.json", {"pair": [1]}, "study.json: is not what a study writes there"),
        ("study.json", {"settings": 3}, "study.json: is not what a study writes there"),
        ("trials.csv", "", "trials.csv: cannot be read as csv"),
        ("trials.csv", "a,b\n1,2\n", "trials.csv: has no column 'dataset'"),
        ("trials.csv", "seed", "trials.csv: column 'seed' holds what is no number"),
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
    # no trial of it has the profile that its study.json was changed to
    assert set(frame.loc[frame["study"] == "sim 2", "n_seeds"]) == {0}
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        f"{name}.{form}"
        for name in ("compare", "compare_fusion", "compare_ablation", "compare_claims")
        for form in ("csv", "md", "tex")
    }
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
    results.save(tmp_path / "results/demo")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/results.md").read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/results.md", "exec"), names)
    assert "test_wa_mean" in capsys.readouterr().out
    assert (tmp_path / "my_figure.png").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [0, 0, 1]}, "seeds holds a value twice"),
        ({"k_text": [1, 1]}, "k_text holds a value twice"),
        ({"k_audio": [-1, 2]}, "k_audio holds less than 1"),
        ({"folds": 0}, "folds is '0'"),
        ({"title": "\ud800"}, "title is"),
        ({"name": "a\nb"}, "name is"),
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


def test_a_study_json_of_brackets(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    (tmp_path / "study.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match="is not what a study writes there"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test_wa": np.nan}, "row 5 is done, and a metric of it is no number"),
        ({"val_ua": np.inf}, "row 5 is done, and a metric of it is no number"),
        ({"status": "weird"}, "row 5 has status 'weird'"),
        ({"fusion": "sum"}, "row 5 has fusion 'sum'"),
    ],
)
def test_rows_that_no_study_wrote(results: Results, tmp_path: Path, change: dict[str, object], said: str) -> None:
    """Never a silent mean over fewer seeds."""
    trials = results.trials.copy()
    for column, value in change.items():
        trials.loc[trials.index[3], column] = value
    Results(about=results.about, trials=trials).save(tmp_path)
    with pytest.raises(InputError, match=said):
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
    assert r"\multicolumn{3}{c}{my\_study}" in (tmp_path / "to" / "compare_fusion.tex").read_text()
    stale = tmp_path / "to" / "compare_old.tex"
    stale.write_text("of an earlier command")
    assert cemobam(arguments) == 0
    assert not stale.exists()
