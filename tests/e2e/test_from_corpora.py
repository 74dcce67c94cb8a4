"""From raw corpora to heatmaps, as a user types it."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from runs import cemobam_here, run_here, start_cemobam, until
from tiny import make_bert, make_wav2vec2
from trees import make_esd, make_iemocap, make_manifest

from cemobam_core import FeatureSet
from study import load_results

GRID = ["--k-audio", "1:2", "--k-text", "1:2", "--seeds", "2", "--epochs", "5", "--hidden-dim", "16"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("encoders")
    audio, text = make_wav2vec2(folder / "wav2vec2"), make_bert(folder / "bert")
    return ["--audio-encoder", str(audio), "--text-encoder", str(text)]


def test_from_the_wav_files_of_iemocap_to_the_heatmap_in_one_command(in_folder: Path, encoders: list[str]) -> None:
    tree = make_iemocap(in_folder / "IEMOCAP_full_release", per_class=6)
    command = ["--dataset", "iemocap", "--data-root", str(tree), *encoders, "--tune-epochs", "2"]
    plan, _ = run_here(*command, *GRID, "--dry-run")
    assert "features are made first" in plan
    assert not (in_folder / "results").exists()

    out, err = run_here(*command, *GRID)
    assert "training layers 1 to 3 of 3" in out
    assert "encoding audio" in err and "tuning text" in err
    assert "test sentences are also in train" in out
    trials = pd.read_csv("results/iemocap/trials.csv")
    assert (trials["status"] == "done").all()
    assert Path("plots/iemocap/fig2_topk.png").stat().st_size > 10_000

    out, err = run_here(*command, *GRID)
    assert "made before" in out and "0 to run" in out
    assert "tuning" not in err and "encoding" not in err and "checking" not in err
    assert "features    train 96, val 12, test 12 utterances" in run_here(*command, *GRID, "--dry-run")[0]

    _, err = run_here(
        *command, *GRID, "--level", "sequence", status=2
    )  # refused before it spends hours on making other features
    assert "was made from other features" in err and "--name" in err
    assert len(list(Path("results/iemocap/features").iterdir())) == 1


@pytest.mark.usefixtures("without_figures")
def test_esd_as_sequences_through_a_store_of_its_own(in_folder: Path, encoders: list[str]) -> None:
    tree = make_esd(in_folder / "ESD", layout="split", per_class=4)
    out, _ = cemobam_here(
        "features", "--dataset", "esd", "--data-root", str(tree), *encoders, "--out", "features/esd",
        "--level", "sequence", "--audio-steps", "4", "--tune-layers", "0", "--split-protocol", "speaker",
    )  # fmt: skip
    assert "0 of 1 test speakers are also in train" in out
    assert "20 of 20 test sentences are also in train" in out
    out, _ = run_here("--dataset", "esd", "--features", "features/esd", *GRID)
    assert "split by features/esd: train 160 (80%), val 20 (10%), test 20 (10%) utterances; fingerprint" in out
    assert "20 of 20 test sentences are also in train" in out
    assert "0 of 1 test speakers are also in train" in out
    assert (pd.read_csv("results/esd/trials.csv")["status"] == "done").all()


@pytest.mark.usefixtures("without_figures")
def test_a_manifest_of_sessions_is_left_out_session_by_session(in_folder: Path, encoders: list[str]) -> None:
    manifest = make_manifest(in_folder / "mine", kind="jsonl")
    run_here(
        "--dataset", "mine", "--manifest", str(manifest), *encoders, "--tune-layers", "0",
        "--split-protocol", "session", "--blocks", "grid", *GRID,
    )  # fmt: skip
    trials = pd.read_csv("results/mine/trials.csv")
    assert sorted(trials["fold"].unique()) == [0, 1, 2]
    assert len(trials) == 2 * 2 * 2 * 3
    assert (pd.read_csv("results/mine/grid.csv")["n_seeds"] == 2).all()


@pytest.mark.usefixtures("without_figures")
def test_two_studies_on_the_splits_of_one_file_have_one_fingerprint(in_folder: Path, encoders: list[str]) -> None:
    tree = make_iemocap(in_folder / "IEMOCAP_full_release", per_class=10)
    corpus = ["--dataset", "iemocap", "--data-root", str(tree)]
    out, _ = cemobam_here("splits", *corpus, "--split-protocol", "session-val", "--to", "splits.csv")
    fingerprint = out.partition("fingerprint ")[2][:16]
    command = [*corpus, *encoders, "--tune-layers", "0", "--split-file", "splits.csv", "--blocks", "grid", *GRID]
    plan, _ = run_here(*command, "--dry-run")
    assert f"fingerprint {fingerprint}" in plan
    out, _ = run_here(*command)
    assert f"fingerprint {fingerprint}" in out
    assert fingerprint in Path("results/iemocap/report.md").read_text()
    assert load_results("results/iemocap").about.splits == fingerprint
    _, err = run_here(*corpus, *encoders, "--split-file", "splits.csv", "--split-protocol", "speaker", status=2)
    assert "--split-protocol speaker with --split-file" in err


@pytest.mark.slow
@pytest.mark.process
def test_killed_at_any_moment_the_features_are_made_all_the_same(in_folder: Path, encoders: list[str]) -> None:
    tree = make_iemocap(in_folder / "IEMOCAP_full_release", per_class=6)
    command = ["features", "--dataset", "iemocap", "--data-root", str(tree), *encoders, "--tune-epochs", "4", "--out"]
    cemobam_here(*command, "whole")
    one_thread = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }  # like this process: sums by two threads differ in their last bits
    # interrupted three times: when the first parts begin, while the audio encoder is tuned, while audio is encoded
    for begun in (".parts", ".parts/**/tuned_audio*", ".parts/**/audio/*.safetensors"):
        process = start_cemobam(*command, "killed", env=one_thread)
        until(lambda begun=begun: any(Path("killed").glob(begun)), begun, process)
        process.kill()
        process.communicate()
    assert not Path("killed/train.safetensors").exists()
    cemobam_here(*command, "killed")
    for split in ("train", "val", "test"):
        killed, whole = (FeatureSet.load(Path(folder) / f"{split}.safetensors") for folder in ("killed", "whole"))
        assert killed.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--dataset", "iemocap", "--data-root", "nowhere"],
            "nowhere: cannot be read (No such file or directory); check the path",
        ),
        (["--dataset", "iemocap", "--data-root", "."], "Session"),
        (
            ["--dataset", "mine", "--data-root", "."],
            "--data-root reads only iemocap, esd, meld, msp-improv, crema-d, ravdess;",
        ),
        (["--dataset", "mine", "--manifest", "nowhere.csv"], "nowhere.csv"),
        (["--dataset", "iemocap", "--data-root", ".", "--manifest", "x.csv"], "two sources of data"),
        (["--dataset", "iemocap", "--data-root", ".", "--features", "x"], "two sources of data"),
        (["--data-root", "."], "--data-root without --dataset"),
        (["--dataset", "iemocap", "--features", ".", "--tune-layers", "2"], "--tune-layers: has no effect"),
        (["--level", "sequence"], "--level: has no effect on the demo"),
        (["--dataset", "iemocap", "--data-root", ".", "--max-bad", "much"], "'much' is not a share"),
        (["--dataset", "iemocap", "--data-root", ".", "--max-tokens", "2"], "at least 3"),
    ],
)
def test_a_mistake_is_told_in_one_line(in_folder: Path, arguments: list[str], said: str, capsys) -> None:
    from study.commands import main

    try:
        status = main(arguments)
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    err = capsys.readouterr().err
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert not any(in_folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--blocks", "fusion", "--k-audio", "1:2", "--k-text", "1:2"], "fusion needs a K pair"),
        (["--k-audio", "1:200"], "K can be 7 at most"),
    ],
)
def test_what_the_study_refuses_is_known_before_features_are_made(
    in_folder: Path, encoders: list[str], capsys, arguments: list[str], said: str
) -> None:
    from study.commands import main

    tree = make_iemocap(in_folder / "IEMOCAP_full_release")
    for rest in ([], ["--dry-run"]):
        assert main(["--dataset", "iemocap", "--data-root", str(tree), *encoders, *arguments, *rest]) == 2
        assert said in capsys.readouterr().err
        assert not (in_folder / "results").exists()


def test_a_manifest_that_says_some_splits_only(in_folder: Path, encoders: list[str], capsys) -> None:
    from study.commands import main

    manifest = make_manifest(in_folder / "mine")
    frame = pd.read_csv(manifest)
    frame["split"] = ["", *["train", "val", "test"] * len(frame)][: len(frame)]
    frame.to_csv(manifest, index=False)
    assert main(["--dataset", "mine", "--manifest", str(manifest), *encoders]) == 2
    assert f"1 of {len(frame)} utterances have no split" in capsys.readouterr().err


def test_an_encoder_that_is_not_to_be_had(in_folder: Path, encoders: list[str], capsys, monkeypatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    from study.commands import main

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    tree = make_iemocap(in_folder / "IEMOCAP_full_release")
    assert main(["--dataset", "iemocap", "--data-root", str(tree), *encoders[:2]]) == 2
    err = capsys.readouterr().err
    assert "google-bert/bert-base-uncased" in err and "--text-encoder FOLDER" in err
    assert not (in_folder / "results").exists()
