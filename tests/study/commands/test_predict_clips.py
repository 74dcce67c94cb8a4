"""``cemobam predict`` with clips: from a WAV to a label."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from listening import keep_model, make_corpus, without_record
from runs import cemobam_here, run_here
from tiny import make_bert, make_transcriber
from trees import write_wav

from cemobam_core import Fold
from cemobam_core.anchors import Anchors
from cemobam_core.encoders.settings import FeatureSettings
from cemobam_core.graph import GatherFrom, GraphConfig
from cemobam_core.neighbours import Ties
from study.engines.models import load_model

TEXT = "I miss her so much, everything is lost"


@dataclass
class Made:
    root: Path
    manifest: Path
    fold: Fold
    models: dict[str, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("made")
    manifest, fold = make_corpus(root)
    systems = ("cemobam", "concat_mlp", "audio_mlp", "text_mlp")
    models = {system: keep_model(fold, root / "models", system) for system in systems}
    models["no_record"] = keep_model(without_record(fold), root / "unrecorded")
    models["whisper"] = make_transcriber(root / "whisper")
    models["deaf"] = make_transcriber(root / "deaf", silent=True)
    return Made(root, manifest, fold, models)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of three clips with their transcripts, and what else folders have."""
    folder = tmp_path / "clips"
    for i, (name, text) in enumerate((("a", TEXT), ("b", "this is wonderful"), ("c", "get out"))):
        write_wav(folder / f"{name}.wav", 200 + 150 * i, seconds=0.5 + 0.1 * i, seed=i)
        (folder / f"{name}.txt").write_text(f"{text}\n")
    (folder / "._a.wav").write_bytes(b"\0\5\x16\7")
    (folder / "notes.md").write_text("three clips")
    return folder


def predict(model: Path, *more: object, status: int = 0) -> tuple[str, str]:
    return cemobam_here("predict", "--model", str(model), *map(str, more), status=status)


def refused(model: Path, *more: object) -> str:
    out, err = predict(model, *more, status=2)
    assert out == ""
    (line,) = err.strip().splitlines()[-1:]
    assert line.startswith("cemobam predict: error: ")
    assert "Traceback" not in err
    return line


def probabilities(out: str) -> dict[str, float]:
    return {name: float(share) for name, share in re.findall(r"^  (\w+) +([\d.]+)%", out, flags=re.MULTILINE)}


def test_one_clip_has_a_label_bars_and_the_utterances_that_it_was_linked_to(made: Made, clips: Path) -> None:
    out, err = predict(made.models["cemobam"], "--audio", clips / "a.wav", "--transcript", TEXT)
    assert err == ""
    shares = probabilities(out)
    assert shares.keys() == {"anger", "happiness", "sadness"}
    assert sum(shares.values()) == pytest.approx(100, abs=0.2)
    assert out.splitlines()[0] == f"a.wav: {max(shares, key=shares.__getitem__)}"
    by_audio, by_text = (
        re.findall(r"^  (spk\d_(\w+)_\d+) +(\w+) +([\d.-]+)  (.+)$", part, flags=re.MULTILINE)
        for part in out.split("nearest by audio")[1].split("nearest by text")
    )
    assert (len(by_audio), len(by_text)) == (3, 2)
    train = load_model(made.models["cemobam"]).train
    assert train is not None
    for rows in (by_audio, by_text):
        similarities = [float(row[3]) for row in rows]
        assert similarities == sorted(similarities, reverse=True)
        for key, emotion, label, _, text in rows:
            assert emotion == label
            i = train.features.utterance_ids.index(key)
            assert train.features.texts is not None
            assert train.features.texts[i].startswith(text.removesuffix("…").strip())
    assert {row[1] for row in by_text} == {"sadness"}  # they say the same sentence


@pytest.mark.parametrize("gather_from", ["chosen", "choosers"])
@pytest.mark.parametrize("ties", ["index", "all"])
def test_its_neighbours_are_those_of_the_graph(made: Made, gather_from: GatherFrom, ties: Ties) -> None:
    train, test = made.fold.train, made.fold.test
    graph = GraphConfig(k_audio=3, k_text=2, gather_from=gather_from, ties=ties)
    anchors, n = Anchors.of(train, graph, 0), len(train)
    counts = []
    for i in range(len(test)):
        one = test.select([i], source="one")
        (found,) = anchors.neighbours(one, graph, 0)
        edges = anchors.batch(one, graph, 0).inputs.edge_index
        linked = set(edges[0, edges[1] == n].tolist()) - {n}
        assert {neighbour.row for rows in found.values() for neighbour in rows} == linked
        for modality, rows in found.items():
            x, y = getattr(train, modality), getattr(one, modality)[0]
            similarity = torch.cosine_similarity(x.double(), y.double()[None])
            assert [one.similarity for one in rows] == pytest.approx(similarity[[one.row for one in rows]].tolist())
            assert [one.similarity for one in rows] == sorted((one.similarity for one in rows), reverse=True)
            if gather_from == "chosen" and rows:
                assert rows[0].similarity == pytest.approx(float(similarity.max()))
            counts.append(len(rows))
    if (gather_from, ties) == ("chosen", "index"):
        assert counts == [3, 2] * len(test)


@pytest.mark.parametrize("system", ["cemobam", "concat_mlp"])
def test_labels_are_those_of_features_made_before(made: Made, tmp_path: Path, system: str) -> None:
    predict(made.models[system], "--manifest", made.manifest, "--to", tmp_path / "clips.csv")
    clips = pd.read_csv(tmp_path / "clips.csv").set_index("id")
    for split in made.fold.splits:
        predict(
            made.models[system], "--features", made.root / f"features/{split}.safetensors", "--to", tmp_path / "f.csv"
        )
        features = pd.read_csv(tmp_path / "f.csv").set_index("id")
        same = clips.loc[features.index, features.columns]
        assert (same["predicted"] == features["predicted"]).all()
        columns = [name for name in features.columns if name.startswith("p_")]
        np.testing.assert_allclose(same[columns], features[columns], atol=1e-4)


def test_one_clip_is_labelled_as_among_many(made: Made, clips: Path, tmp_path: Path) -> None:
    out, err = predict(made.models["cemobam"], "--audio", clips, "--to", tmp_path / "many.csv")
    assert out.startswith("3 clips labelled: ")
    assert "encoding: 100%" in err
    many = pd.read_csv(tmp_path / "many.csv").set_index("id")
    assert list(many.index) == ["a.wav", "b.wav", "c.wav"]
    assert many.loc["a.wav", "text"] == TEXT
    for name in ("a", "b", "c"):
        text = (clips / f"{name}.txt").read_text()
        given = ("--audio", clips / f"{name}.wav", "--transcript", text, "--to", tmp_path / "one.csv")
        predict(made.models["cemobam"], *given)
        one = pd.read_csv(tmp_path / "one.csv").set_index("id")
        assert one["predicted"].tolist() == [many.loc[f"{name}.wav", "predicted"]]
        columns = [column for column in many if column.startswith("p_")]
        np.testing.assert_allclose(one[columns], many.loc[[f"{name}.wav"], columns], atol=1e-6)


def test_a_manifest_with_labels_is_measured(made: Made, tmp_path: Path) -> None:
    out, _ = predict(made.models["cemobam"], "--manifest", made.manifest, "--to", tmp_path / "out.csv")
    predicted = pd.read_csv(tmp_path / "out.csv")
    right = (predicted["predicted"] == predicted["id"].str.split("_").str[1]).mean()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert ["accuracy", "WA", f"{100 * right:.2f}"] in rows
    manifest = pd.read_csv(made.manifest)
    manifest["audio"] = [str((made.manifest.parent / path).resolve()) for path in manifest["audio"]]
    manifest[["audio", "text"]].to_json(tmp_path / "bare.jsonl", orient="records", lines=True)
    out, _ = predict(made.models["cemobam"], "--manifest", tmp_path / "bare.jsonl", "--to", tmp_path / "bare.csv")
    assert "WA" not in out
    bare = pd.read_csv(tmp_path / "bare.csv")
    assert bare["predicted"].tolist() == predicted["predicted"].tolist()


def test_a_whisper_model_writes_the_transcript(made: Made, clips: Path, tmp_path: Path) -> None:
    given = ("--audio", clips / "a.wav", "--asr", made.models["whisper"], "--to", tmp_path / "one.csv")
    out, _ = predict(made.models["cemobam"], *given)
    (heard,) = pd.read_csv(tmp_path / "one.csv")["text"]
    assert f"heard by {made.models['whisper']}: {heard}\n" in out
    typed, _ = predict(made.models["cemobam"], "--audio", clips / "a.wav", "--transcript", heard)
    assert probabilities(typed) == probabilities(out)
    predict(made.models["cemobam"], "--audio", clips, "--asr", made.models["whisper"], "--to", tmp_path / "out.csv")
    assert TEXT not in set(pd.read_csv(tmp_path / "out.csv")["text"])
    line = refused(made.models["cemobam"], "--audio", clips / "a.wav", "--asr", made.models["deaf"])
    assert "hears no words in it; write the transcript yourself" in line


def test_a_model_of_one_modality_needs_no_other(made: Made, clips: Path, tmp_path: Path) -> None:
    audio, text = made.models["audio_mlp"], made.models["text_mlp"]
    out, _ = predict(audio, "--audio", clips / "a.wav")
    assert len(probabilities(out)) == 3
    assert "nearest" not in out
    predict(audio, "--audio", clips, "--to", tmp_path / "out.csv")
    assert "text" not in pd.read_csv(tmp_path / "out.csv")
    out, _ = predict(text, "--transcript", TEXT)
    assert out.startswith("the transcript: ")
    heard, _ = predict(text, "--audio", clips / "a.wav", "--asr", made.models["whisper"])
    assert len(probabilities(heard)) == 3
    assert "does not use the text; leave the option out" in refused(
        audio, "--audio", clips / "a.wav", "--transcript", "x"
    )
    assert "--asr: the model in" in refused(audio, "--audio", clips / "a.wav", "--asr", made.models["whisper"])
    assert "--audio: the model in" in refused(text, "--audio", clips / "a.wav", "--transcript", "x")
    assert "--text-encoder: the model in" in refused(audio, "--audio", clips / "a.wav", "--text-encoder", "x")
    assert "text_mlp" in refused(made.models["cemobam"], "--transcript", TEXT)


def test_a_model_holds_what_it_needs(made: Made) -> None:
    content = json.loads((made.models["cemobam"] / "config.json").read_text())
    encoders = content["encoders"]
    assert encoders["audio"]["name"] == str((made.root / "wav2vec2").resolve())
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", encoders["text"]["hash"])
    assert encoders["settings"] == FeatureSettings().of_embedding()
    assert encoders["settings"].keys() >= {"level", "audio_steps", "max_seconds", "max_tokens", "text_pool"}
    assert encoders["settings"].keys().isdisjoint({"protocol", "tune_layers", "audio_encoder", "asr"})
    kept = load_model(made.models["cemobam"])
    assert kept.train is not None
    train = made.fold.train
    assert kept.train.features.utterance_ids == train.utterance_ids
    assert kept.train.features.texts == train.texts is not None
    assert kept.train.features.labels.tolist() == train.labels.tolist()
    assert json.loads((made.models["no_record"] / "config.json").read_text())["encoders"] is None


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("audio.name", 3, "encoders.audio must have the strings hash, name, revision, tuned_from"),
        ("audio.name", "", "encoders.audio must have the strings"),
        ("audio.hash", "x\ny", "encoders.audio must have the strings"),
        ("text.extra", "x", "encoders.text must have the strings"),
        ("settings.level", "word", "encoders.settings: level is 'word'"),
        ("settings.max_seconds", "20", "encoders.settings: max_seconds is '20'"),
        ("settings.max_seconds", float("inf"), "max_seconds=inf must be a finite number"),
        ("settings.audio_steps", 0, "audio_steps=0 must be a whole number of at least 1"),
        ("settings.max_tokens", True, "encoders.settings: max_tokens is 'True'"),
        ("settings.protocol", "speaker", "encoders.settings must have level, "),
    ],
)
def test_a_hostile_record_of_encoders_is_refused(
    made: Made, tmp_path: Path, clips: Path, where: str, value: object, message: str
) -> None:
    model = Path(shutil.copytree(made.models["concat_mlp"], tmp_path / "model"))
    content = json.loads((model / "config.json").read_text())
    part, name = where.split(".")
    content["encoders"][part][name] = value
    (model / "config.json").write_text(json.dumps(content))
    assert message in refused(model, "--audio", clips / "a.wav", "--transcript", TEXT)


def test_moved_encoders_are_found_and_others_refused(tmp_path: Path) -> None:
    manifest, fold = make_corpus(tmp_path, tune_layers=1, tune_epochs=1, level="sequence", audio_steps=4)
    model = keep_model(fold, tmp_path / "models")
    record = json.loads((model / "config.json").read_text())["encoders"]
    assert record["audio"]["name"] == str((tmp_path / "features/encoders/audio").resolve())
    assert record["audio"]["tuned_from"] == str(tmp_path / "wav2vec2")
    clip = ("--audio", manifest.parent / "audio/spk0_anger_00.wav", "--transcript", TEXT)
    before, _ = predict(model, *clip)
    (tmp_path / "features/encoders").rename(tmp_path / "moved")
    line = refused(model, *clip)
    assert "features/encoders/audio: the encoder of the model is no longer there; give the folder that it was" in line
    assert "--audio-encoder DIR" in line
    places = ("--audio-encoder", tmp_path / "moved/audio", "--text-encoder", tmp_path / "moved/text")
    assert predict(model, *clip, *places)[0] == before
    # the encoder that it was tuned from is another one
    line = refused(model, *clip, "--audio-encoder", tmp_path / "wav2vec2", *places[2:])
    assert record["audio"]["hash"] in line
    assert re.search(r"wav2vec2: is sha256:\w+, but the model was trained with .*/encoders/audio sha256:", line)


def test_an_encoder_that_changed_since_is_refused(made: Made, tmp_path: Path, clips: Path) -> None:
    _, fold = make_corpus(tmp_path)
    model = keep_model(fold, tmp_path / "models", "concat_mlp")
    make_bert(tmp_path / "bert", seed=5)
    line = refused(model, "--audio", clips / "a.wav", "--transcript", TEXT)
    assert re.search(r"--text-encoder .*bert: is sha256:\w{16}, but the model was trained with .*bert sha256:", line)


def test_every_kind_of_wav_works(made: Made, tmp_path: Path) -> None:
    tone = 0.4 * np.sin(np.arange(96_000) / 20)
    shares = []
    for name, rate, kind in (("u8", 16_000, "PCM_U8"), ("fast", 192_000, "PCM_16"), ("float", 44_100, "FLOAT")):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([tone, tone], axis=1), rate, subtype=kind)
        out, _ = predict(made.models["cemobam"], "--audio", tmp_path / f"{name}.wav", "--transcript", TEXT)
        shares.append(probabilities(out))
    assert all(len(share) == 3 for share in shares)


def write_bad(folder: Path) -> dict[str, Path]:
    """Write clips that cannot be used."""
    files = {name: folder / f"{name}.wav" for name in ("nan", "long", "silent", "cut", "empty")}
    soundfile.write(files["nan"], np.array([0.1, np.nan, 0.2] * 1000), 16_000, subtype="FLOAT")
    soundfile.write(files["long"], np.arange(7_300_000, dtype=np.int8).astype(np.int16), 1_000)
    soundfile.write(files["silent"], np.zeros(1000), 16_000)
    write_wav(files["cut"], 300)
    files["cut"].write_bytes(files["cut"].read_bytes()[:2000])
    files["empty"].touch()
    files["mp4"] = folder / "silent.mp4"
    files["mp4"].write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08free")
    return files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "contains NaN or infinite samples"),
        ("long", "lasts 2.0 hours; cut it into utterances first"),
        ("silent", "is silent: every sample is 0"),
        ("cut", "is cut short"),
        ("empty", "the file is empty"),
        ("mp4", "silent.mp4: "),
    ],
)
def test_bad_audio_is_told_in_one_line(made: Made, tmp_path: Path, name: str, message: str) -> None:
    line = refused(made.models["cemobam"], "--audio", write_bad(tmp_path)[name], "--transcript", TEXT)
    assert message in line


def test_a_transcript_beside_a_clip_that_is_no_text(made: Made, clips: Path) -> None:
    (clips / "c.txt").unlink()
    os.mkfifo(clips / "c.txt")
    (clips / "b.txt").write_text("word " * 30_000)
    line = refused(made.models["cemobam"], "--audio", clips, "--to", "o.csv")
    assert "b.txt line 1: has more than 100000 letters" in line
    (clips / "b.txt").write_text("word \n" * 30_000)
    line = refused(made.models["cemobam"], "--audio", clips, "--to", "o.csv")
    assert "b.txt: has more than 100000 letters; give the transcript of the clip" in line
    (clips / "b.txt").write_text("words")
    line = refused(made.models["cemobam"], "--audio", clips, "--to", "o.csv")
    assert "c.wav: no transcript; write it" in line


Arguments = Callable[[Path, Made], tuple[object, ...]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda c, m: (), "nothing to label is given; give --audio CLIP with --transcript TEXT"),
        (lambda c, m: ("--audio", c / "a.wav"), "a.wav: no transcript; write it (--transcript, a file a.txt beside"),
        (lambda c, m: ("--audio", c / "a.wav", "--transcript", "  "), "--transcript: is empty; write what is said"),
        (lambda c, m: ("--audio", c / "x.wav", "--transcript", "x"), "x.wav: cannot be read (No such file"),
        (lambda c, m: ("--audio", c, "--transcript", "x", "--to", "o.csv"), "is a folder; write each transcript into"),
        (lambda c, m: ("--audio", c), "--to FILE.csv: is required here"),
        (lambda c, m: ("--audio", c.parent, "--to", "o.csv"), "has no sound files (.aac, "),
        (lambda c, m: ("--audio", c / "a.wav", "--asr", m.models["whisper"], "--transcript", "x"), "two transcripts"),
        (lambda c, m: ("--audio", c / "a.wav", "--asr", m.root / "bert"), "bert models are not supported; give a Wh"),
        (lambda c, m: ("--audio", c / "a.wav", "--manifest", m.manifest), "--audio with --manifest: these are two"),
        (lambda c, m: ("--manifest", m.manifest, "--transcript", "x", "--to", "o.csv"), "is for the one clip of"),
        (lambda c, m: ("--manifest", m.manifest, "--asr", "x", "--to", "o.csv"), "has transcripts; leave the option"),
        (lambda c, m: ("--manifest", c / "x.csv", "--to", "o.csv"), "x.csv: cannot be read"),
        (
            lambda c, m: ("--features", m.root / "features/test.safetensors", "--asr", "x", "--to", "o.csv"),
            "--asr: has no effect on --features",
        ),
        (lambda c, m: ("--features", m.root / "features/test.safetensors"), "--to FILE.csv: is required here"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    made: Made, clips: Path, in_folder: Path, arguments: Arguments, message: str
) -> None:
    assert message in refused(made.models["cemobam"], *arguments(clips, made))
    assert not Path("o.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("audio,text\na.wav,hello\nmissing.wav,hello\n", "line 3: no audio file"),
        ("audio,label,text\na.wav,anger,x\nb.wav,,x\n", "line 3: label is empty, but other lines have one"),
        ("audio,label,text\na.wav,joy,x\n", "label 'joy' is not a class of this data set (anger, happiness, sadness)"),
        ("text,label\nhello,anger\n", "no column 'audio'"),
        ("audio,text\n", "no clips"),
        ("audio,text\na.wav,\nb.wav,hello\n", "a.wav: no transcript; write it"),
        ("audio,text\na.wav,x\na.wav,y\n", "id 'a' already occurs in line 2"),
    ],
)
def test_a_bad_manifest_is_told_in_one_line(made: Made, clips: Path, content: str, message: str) -> None:
    (clips / "list.csv").write_text(content)
    assert message in refused(made.models["cemobam"], "--manifest", clips / "list.csv", "--to", clips / "o.csv")
    assert not (clips / "o.csv").exists()


def test_bad_clips_among_many_are_told_before_any_is_encoded(made: Made, clips: Path) -> None:
    (clips / "b.wav").write_bytes(b"")
    (clips / "c.txt").unlink()
    _, err = predict(made.models["cemobam"], "--audio", clips, "--to", clips / "o.csv", status=2)
    (line,) = err.strip().splitlines()
    assert "b.wav: the file is empty (2 of 3 clips cannot be used)" in line
    assert not (clips / "o.csv").exists()


def test_a_model_that_does_not_know_its_encoders_says_so(made: Made, clips: Path) -> None:
    line = refused(made.models["no_record"], "--audio", clips / "a.wav", "--transcript", TEXT)
    assert "was trained on features whose encoders are not recorded; give features with --features" in line


def test_a_checkpoint_of_the_authors_takes_features_only(clips: Path) -> None:
    given = ("--released-checkpoint", "x.pt", "--audio", str(clips / "a.wav"), "--transcript", "x")
    _, err = cemobam_here("predict", *given, status=2)
    assert "--audio: a checkpoint of the authors' code does not name its encoders; give features" in err


def test_a_corpus_with_transcripts_is_not_transcribed(made: Made, in_folder: Path) -> None:
    encoders = ("--audio-encoder", str(made.root / "wav2vec2"), "--text-encoder", str(made.root / "bert"))
    given = ("--dataset", "mine", "--manifest", str(made.manifest), *encoders, "--asr", str(made.models["whisper"]))
    _, err = cemobam_here("features", *given, "--out", "out", status=2)
    assert "has transcripts; leave the option out" in err
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_from_a_corpus_to_a_label_in_three_commands(made: Made, in_folder: Path) -> None:
    encoders = ("--audio-encoder", str(made.root / "wav2vec2"), "--text-encoder", str(made.root / "bert"))
    cemobam_here(
        "features", "--dataset", "mine", "--manifest", str(made.manifest), *encoders, "--tune-layers", "1",
        "--tune-epochs", "1", "--split-protocol", "session", "--out", "features",
    )  # fmt: skip
    run_here(
        "--dataset", "mine", "--features", "features", "--k-audio", "2", "--k-text", "1,2", "--seeds", "1", "--epochs",
        "2", "--hidden-dim", "8", "--blocks", "grid", "--workers", "2", "--keep-models", "best",
    )  # fmt: skip
    models = sorted(Path("results/mine/models").iterdir())
    assert len(models) == 3
    for fold, model in enumerate(models):
        clip = made.manifest.parent / "audio/spk0_anger_00.wav"
        out, _ = predict(model, "--audio", clip, "--transcript", "get out")
        assert len(probabilities(out)) == 3
        encoders_of_fold = json.loads((model / "config.json").read_text())["encoders"]
        assert encoders_of_fold["text"]["name"] == str((in_folder / f"features/encoders/fold_{fold}/text").resolve())
