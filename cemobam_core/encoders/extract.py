"""From a raw corpus to features: check the audio, tune the encoders, encode and write the splits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout

from cemobam_core.corpora.leaks import leaks
from cemobam_core.corpora.splits import Assignment, Say, quietly, splits_fingerprint
from cemobam_core.corpora.utterances import BadUtterance, Utterance
from cemobam_core.encoders.ahead import ahead
from cemobam_core.encoders.asr import Transcripts, load_transcriber
from cemobam_core.encoders.audio import AudioEncoder
from cemobam_core.encoders.finetune import Encoder, TuningConfig, TuningData, tune
from cemobam_core.encoders.loading import load_encoder
from cemobam_core.encoders.pretrained import Pretrained, find_pretrained
from cemobam_core.encoders.record import RECORD, EncoderRecord, EncodersRecord
from cemobam_core.encoders.settings import Recipe
from cemobam_core.encoders.sound import READING_AHEAD, end_decoders, seconds_of
from cemobam_core.encoders.store import SHARD_BYTES, Parts, SplitRows, write_json, write_splits
from cemobam_core.errors import InputError
from cemobam_core.features import MODALITIES
from cemobam_core.files import told_of_a_full_disk, written_atomically
from cemobam_core.json_files import read_json
from cemobam_core.progress import progress_bar
from cemobam_core.wall import refuse_irregular

FEATURES_JSON = "features.json"
"""Description of a folder of features. It is written last, so a folder that contains it is complete."""

_PARTS, _ENCODERS = ".parts", "encoders"
_PART_SECONDS = 300.0
"""Seconds of audio in one part of the store. An interruption loses at most one part."""
_PART_LETTERS = 20_000.0
_BAD_SHOWN = 20


def make_features(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "cpu",
    max_bad: float = 0.01,
    shard_bytes: int = SHARD_BYTES,
    say: Callable[[str], None] = print,
) -> None:
    """Make the features of a corpus, unless ``out`` already has them. An interrupted call is resumed.

    ``out`` receives ``train.safetensors``, ``val.safetensors`` and ``test.safetensors`` (large ones in shards, and for
    a protocol with several folds, in ``fold_0`` and so on), ``utterances.csv``, ``features.json`` with everything the
    features were made from, and tuned encoders under ``encoders/``.

    Args:
        recipe: The corpus, the encoders and the settings.
        out: Folder of the features.
        device: ``cpu`` or ``cuda``.
        max_bad: Largest share of utterances that may be unusable. They are left out and reported.
        shard_bytes: Largest size of a feature file in bytes. A larger split is written in shards.
        say: Function that receives each line of output.

    Raises:
        InputError: An encoder cannot be loaded, too many utterances are bad, or the folder contains other features.
    """
    for modality in MODALITIES:
        pretrained: Pretrained = getattr(recipe, modality)
        if pretrained.folder.resolve().is_relative_to((out / _ENCODERS).resolve()):
            raise InputError(
                f"--{modality}-encoder {pretrained.name}: is inside {out / _ENCODERS}, where tuning would overwrite "
                "it; write these features to another folder"
            )
    if (made := made_before(recipe, out)) is not None:
        say(f"features: {out}, made before; fingerprint of the splits {made['splits']['fingerprint']}")
        for line in made["leaks"]:
            say(f"  {line}")
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            _Extraction(recipe, out, device, max_bad, shard_bytes, say).run()
    except Timeout:
        raise InputError(f"{out}: another run is making these features; wait until it has finished") from None
    except torch.OutOfMemoryError:
        raise InputError(
            f"--max-seconds {recipe.settings.max_seconds:g}: the GPU does not have enough memory; give fewer seconds, "
            "or --device cpu (the finished parts are kept)"
        ) from None
    finally:
        end_decoders()


def made_before(recipe: Recipe, out: Path) -> dict[str, Any] | None:
    """Return the content of ``features.json`` if a folder contains all features of a recipe, and ``None`` otherwise.

    Raises:
        InputError: The folder contains other features.
    """
    path = out / FEATURES_JSON
    if not path.exists():
        finished = any(out.glob("train[.-]*")) or any(out.glob("fold_0/train[.-]*"))
        if finished and not (out / _PARTS).exists():
            raise InputError(f"{out}: contains features that this command did not make; give another folder with --out")
        return None
    refuse_irregular(path)
    try:
        made = read_json(path)
        signature, facts, files = made["signature"], dict(made["made_from"]), list(map(str, made["files"]))
        made["leaks"] = list(map(str, made["leaks"]))
        made["splits"] = {"fingerprint": str(made["splits"]["fingerprint"])}
        if not "".join([*made["leaks"], made["splits"]["fingerprint"]]).isprintable():
            raise ValueError("a line of it cannot be printed")
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; remove the folder to make the features again") from None
    if signature != recipe.signature:
        ours = recipe.facts
        other = next((name for name in {**facts, **ours} if facts.get(name) != ours.get(name)), "version")
        raise InputError(
            f"{out}: contains features made with other settings ({other} {facts.get(other)}, now {ours.get(other)}); "
            "give another folder with --out"
        )
    if missing := [name for name in files if not (out / name).is_file()]:
        raise InputError(f"{out / missing[0]}: is missing; restore it, or remove {out} to make the features again")
    return dict(made)


@dataclass
class _Extraction:
    """One run of ``make_features``."""

    recipe: Recipe
    out: Path
    device: str
    max_bad: float
    shard_bytes: int
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.bad: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.used: list[Utterance] = []  # those that are in a split
        self.files: list[Path] = []  # that were written
        self.facts, self.signature = self.recipe.facts, self.recipe.signature  # before the corpus is transcribed
        # Results of two devices or two versions differ in their last bits and are not mixed.
        made_by = hashlib.sha256(json.dumps([self.device, _versions()]).encode()).hexdigest()[:8]
        self.parts_folder = self.out / _PARTS / f"{self.signature}-{made_by}"

    def run(self) -> None:
        corpus = self.recipe.corpus
        for line in corpus.notes:
            self.say(line)
        folds = self._split(self.say)
        for modality in MODALITIES:  # finds a wrong encoder in seconds, before minutes of reading audio
            load_encoder(modality, getattr(self.recipe, modality), self.recipe.settings)
        if self.recipe.asr:
            load_transcriber(self.recipe.asr)
        self._check_audio()
        self._refuse_too_many_bad()
        self._refuse_missing_classes(folds)
        self.say(f"audio: {len(self.seconds)} files, {sum(self.seconds.values()) / 3600:.2f} hours")
        if self.recipe.asr:
            self._transcribe(self.recipe.asr)
            self._refuse_too_many_bad()
            folds = self._split(quietly)  # now with transcripts
            self._refuse_missing_classes(folds)
        tuning: dict[str, Any] = {}
        made = []
        for i, fold in enumerate(folds):
            parts = {}
            for modality, layers in zip(MODALITIES, self.recipe.tuned, strict=True):
                # An encoder that is not tuned is the same in every fold, and so are its embeddings.
                where = _fold_name(i, folds) if layers else ""
                name = f"{modality} {where}".strip()
                parts[modality] = Parts(self.parts_folder / where / modality)
                missing = self._missing(modality, parts[modality])
                if layers:
                    tuning[name] = self._tune(modality, where, fold, name)
                if missing:
                    self._encode(self._encoder(modality, where), missing, parts[modality], name)
                self.bad |= parts[modality].bad
            made.append(parts)
        self._refuse_too_many_bad()
        self._refuse_missing_classes(folds)
        folds = tuple(fold.without(self.bad) for fold in folds)
        for i, (fold, parts) in enumerate(zip(folds, made, strict=True)):
            self._write_fold(fold, parts, _fold_name(i, folds))
        self._finish(folds, tuning)

    def _split(self, say: Say) -> tuple[Assignment, ...]:
        folds = self.recipe.split(say)
        used = {u.id for fold in folds for part in fold.splits.values() for u in part}
        self.used = [u for u in self.recipe.corpus.utterances if u.id in used]
        return folds

    # -- audio -------------------------------------------------------------------------------------------------------

    def _check_audio(self) -> None:
        """Read every file completely, so that broken files are known before hours of work."""
        utterances = self.used
        with (
            ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,  # each thread holds one file
            progress_bar(total=len(utterances), desc="checking audio", unit="file") as bar,
        ):
            measured = pool.map(lambda u: _or_error(seconds_of, u.audio), utterances)
            for utterance, found in zip(utterances, measured, strict=True):
                if isinstance(found, InputError):
                    self.bad[utterance.id] = str(found)
                else:
                    self.seconds[utterance.id] = found
                bar.update()

    def _refuse_too_many_bad(self) -> None:
        corpus = self.recipe.corpus
        bad = self._all_bad()
        everything = len(self.used) + len(corpus.bad)
        if len(bad) > self.max_bad * everything:
            self._write_bad()
            shown = "; ".join(f"{b.id}: {b.reason}" for b in bad[:3])
            raise InputError(
                f"{corpus.root}: {len(bad)} of {everything} utterances cannot be used, more than --max-bad "
                f"{self.max_bad:.3g} ({shown}{'; …' if len(bad) > 3 else ''}); repair those that "
                f"{self.out / 'bad.csv'} lists, or raise --max-bad"
            )

    def _refuse_missing_classes(self, folds: Sequence[Assignment]) -> None:
        """Raise InputError if a split has lost all utterances of a class to bad files."""
        for fold in folds:
            for name, utterances in fold.without(self.bad).splits.items():
                there = {u.label for u in utterances}
                for label in [label for label in self.recipe.corpus.class_names if label not in there]:
                    self._write_bad()
                    raise InputError(
                        f"{self.recipe.corpus.root}: no usable utterance of class {label!r} is left in the {name} "
                        f"split (unusable in all splits: {len(self.bad)}); repair those that {self.out / 'bad.csv'} "
                        "lists, or give another --split-protocol"
                    )

    # -- transcripts -------------------------------------------------------------------------------------------------

    def _transcribe(self, asr: Pretrained) -> None:
        """Transcribe the corpus, part by part. A clip in which no words are heard is bad."""
        corpus = self.recipe.corpus
        usable = sorted((u for u in self.used if u.id in self.seconds), key=lambda u: -self.seconds[u.id])
        transcripts = Transcripts(self.parts_folder / "transcripts", asr, self.device)
        transcripts.make(_batches(usable, self.seconds, _PART_SECONDS), self.seconds)
        for key, reason in transcripts.bad.items():
            self.bad[key] = reason
            del self.seconds[key]
        heard = tuple(replace(u, text=transcripts.texts.get(u.id, "")) for u in corpus.utterances)
        self.recipe = replace(self.recipe, corpus=replace(corpus, utterances=heard))

    # -- encoders ----------------------------------------------------------------------------------------------------

    def _encoder(self, modality: str, where: str) -> Encoder:
        """Return the encoder of a modality: the one tuned for a fold, or the original one."""
        tuned = self._tuned_folder(modality, where)
        if self.recipe.tuned[MODALITIES.index(modality)] and tuned.is_dir():
            pretrained = Pretrained(name=str(tuned), folder=tuned, revision="")
        else:
            pretrained = getattr(self.recipe, modality)
        return load_encoder(modality, pretrained, self.recipe.settings).to(self.device)

    def _tuned_folder(self, modality: str, where: str) -> Path:
        return self.out / _ENCODERS / where / modality

    def _tune(self, modality: str, where: str, fold: Assignment, name: str) -> dict[str, Any]:
        """Tune the encoder of a modality on a fold's train split, unless this is done, and return a report."""
        settings, folder = self.recipe.settings, self._tuned_folder(modality, where)
        record, checkpoint = (self.parts_folder / where / f"tuned_{modality}{suffix}" for suffix in (".json", ".pt"))
        if record.exists() and folder.is_dir():
            done: dict[str, Any] = read_json(record)
            return done
        shutil.rmtree(folder, ignore_errors=True)  # from an attempt with other settings
        encoder = self._encoder(modality, where)
        tuned = tune(
            encoder,
            self._tuning_data(fold.train, modality),
            self._tuning_data(fold.val, modality),
            num_classes=len(self.recipe.corpus.class_names),
            config=TuningConfig(
                layers=self.recipe.tuned[MODALITIES.index(modality)],
                objective=settings.objective,
                epochs=settings.tune_epochs,
                lr=settings.tune_lr,
            ),
            checkpoint=checkpoint,
            name=name,
            say=self.say,
        )
        losses = ", ".join(f"{loss:.3f}" for loss in tuned.val_losses)
        self.say(f"{name}: epoch {tuned.best_epoch} kept; validation loss by epoch {losses}")
        saving = self.parts_folder / "saving"
        shutil.rmtree(saving, ignore_errors=True)
        with told_of_a_full_disk(saving):
            encoder.save(saving)
        folder.parent.mkdir(parents=True, exist_ok=True)
        saving.rename(folder)
        write_json(record, asdict(tuned))
        checkpoint.unlink(missing_ok=True)  # four times the size of the tuned layers, and no longer needed
        return asdict(tuned)

    def _tuning_data(self, utterances: Sequence[Utterance], modality: str) -> TuningData:
        usable = [u for u in utterances if u.id not in self.bad]
        classes = self.recipe.corpus.class_names
        return TuningData(
            items=[getattr(u, modality) for u in usable],
            labels=torch.tensor([classes.index(u.label) for u in usable]),
        )

    # -- embeddings --------------------------------------------------------------------------------------------------

    def _missing(self, modality: str, parts: Parts) -> dict[int, list[Utterance]]:
        """Return the missing parts by number. A part has utterances of similar length, so there is little padding.

        The longest utterances come first, so memory runs out at once or never.
        """
        size, limit = self._size(modality), _PART_SECONDS if modality == "audio" else _PART_LETTERS
        usable = [u for u in self.used if u.id in self.seconds]
        batches = _batches(sorted(usable, key=lambda u: -size[u.id]), size, limit)
        found = parts.find({i: [u.id for u in batch] for i, batch in enumerate(batches)})
        return {i: batch for i, batch in enumerate(batches) if i not in found}

    def _size(self, modality: str) -> dict[str, float]:
        if modality == "audio":
            return self.seconds
        return {u.id: float(len(u.text)) for u in self.used}

    def _encode(self, encoder: Encoder, missing: Mapping[int, list[Utterance]], parts: Parts, name: str) -> None:
        of_audio = isinstance(encoder, AudioEncoder)
        modality, unit = ("audio", "s of audio") if of_audio else ("text", "utterance")
        size = self.seconds if of_audio else dict.fromkeys(self._size(modality), 1.0)
        sequence = self.recipe.settings.level == "sequence"

        def load(part: tuple[int, list[Utterance]]) -> list[Any]:
            return list(readers.map(lambda u: _or_error(encoder.read, getattr(u, modality)), part[1]))

        done, total = 0.0, sum(size[u.id] for batch in missing.values() for u in batch)
        with (
            ThreadPoolExecutor(max_workers=READING_AHEAD) as readers,
            progress_bar(total=round(total), desc=f"encoding {name}", unit=unit) as bar,
        ):
            for (number, batch), loaded in ahead(missing.items(), load):
                read = dict(zip((u.id for u in batch), loaded, strict=True))
                bad = {key: str(item) for key, item in read.items() if isinstance(item, InputError)}
                rows = encoder.embed([item for key, item in read.items() if key not in bad], sequence=sequence)
                embeddings = dict(zip((key for key in read if key not in bad), rows, strict=True))
                bad |= {
                    key: f"its {name} embedding is not finite"
                    for key, embedding in embeddings.items()
                    if not torch.isfinite(embedding).all()
                }
                parts.add(number, {key: value for key, value in embeddings.items() if key not in bad}, bad)
                done += sum(size[u.id] for u in batch)
                bar.update(round(done) - bar.n)

    # -- what is written ---------------------------------------------------------------------------------------------

    def _write_fold(self, fold: Assignment, parts: Mapping[str, Parts], where: str) -> None:
        classes, folder = self.recipe.corpus.class_names, self.out / where
        provenance = self._provenance(where)
        splits = []
        for name, rows in fold.splits.items():
            splits.append(
                SplitRows(
                    path=folder / f"{name}.safetensors",
                    ids=[u.id for u in rows],
                    labels=[classes.index(u.label) for u in rows],
                    class_names=classes,
                    speakers=_all_known([u.speaker for u in rows]),
                    sessions=_all_known([u.session for u in rows]),
                    scripts=_all_known([u.script for u in rows]),
                    texts=_all_known([u.text or None for u in rows]),
                    seconds=[round(self.seconds[u.id], 3) for u in rows],
                    provenance=provenance,
                )
            )
        self.files += write_splits(
            splits,
            parts,
            sequences=self.recipe.settings.level == "sequence",
            scratch=self.parts_folder,
            dtype=getattr(torch, self.recipe.settings.dtype),
            shard_bytes=self.shard_bytes,
        )

    def _provenance(self, where: str) -> dict[str, str]:
        """Return the description of their origin that is stored in every feature file of a fold."""
        facts = {key: json.dumps(value) for key, value in self.facts.items() if key != "class_names"}
        encoders = {}
        for modality, layers in zip(MODALITIES, self.recipe.tuned, strict=True):
            original: Pretrained = getattr(self.recipe, modality)
            facts[f"{modality}_encoder"] = original.name
            if layers:
                tuned = find_pretrained(str(self._tuned_folder(modality, where)), f"--{modality}-encoder")
                encoders[modality] = EncoderRecord.of(tuned, tuned_from=original.name)
            else:
                encoders[modality] = EncoderRecord.of(original)
        if self.recipe.asr:
            facts["asr"] = self.recipe.asr.name
        record = EncodersRecord(**encoders, settings=self.recipe.settings)
        return {**facts, RECORD: record.to_json(), "signature": self.signature, **_versions()}

    def _all_bad(self) -> list[BadUtterance]:
        label = {u.id: u.label for u in self.recipe.corpus.utterances}
        found = [BadUtterance(id=key, reason=reason, label=label[key]) for key, reason in self.bad.items()]
        return sorted([*self.recipe.corpus.bad, *found], key=lambda bad: bad.id)

    def _write_bad(self) -> None:
        _write_csv(self.out / "bad.csv", [asdict(bad) for bad in self._all_bad()])

    def _finish(self, folds: Sequence[Assignment], tuning: Mapping[str, Any]) -> None:
        """Report the result and write it to disk. The last file marks the features as complete."""
        corpus, bad = self.recipe.corpus, self._all_bad()
        rows = [
            self._row(u, i, name)
            for i, fold in enumerate(folds)
            for name, utterances in fold.splits.items()
            for u in utterances
        ]
        _write_csv(self.out / "utterances.csv", rows)
        leaking = [str(leak) for leak in leaks(*folds)]
        fingerprint = splits_fingerprint(folds)  # without bad utterances, so it may not be the protocol's
        (self.out / "bad.csv").unlink(missing_ok=True)  # from an earlier attempt
        if bad:
            self._write_bad()
            self.say(f"{len(bad)} utterances could not be used and are left out (also in {self.out / 'bad.csv'}):")
            for one in bad[:_BAD_SHOWN]:
                self.say(f"  {one.id}: {one.reason}")
            if len(bad) > _BAD_SHOWN:
                self.say(f"  … and {len(bad) - _BAD_SHOWN} more")
        for line in leaking:
            self.say(line)
        write_json(
            self.out / FEATURES_JSON,
            {
                "signature": self.signature,
                "corpus": corpus.title,
                "reduction": corpus.reduction,
                "utterances": len(self.used) - len(self.bad),
                "splits": {
                    "fingerprint": fingerprint,
                    "folds": [
                        {
                            **{name: len(part) for name, part in fold.splits.items()},
                            "left out": len(corpus.utterances) - len(self.bad) - sum(map(len, fold.splits.values())),
                        }
                        for fold in folds
                    ],
                },
                "files": [file.relative_to(self.out).as_posix() for file in self.files],
                "corpus_root": str(corpus.root),
                "made_from": self.facts,
                "encoders": {modality: getattr(self.recipe, modality).name for modality in MODALITIES},
                **({"asr": self.recipe.asr.name} if self.recipe.asr else {}),
                "tuning": tuning,
                "device": self.device,
                "versions": _versions(),
                "leaks": leaking,
                "bad": [asdict(one) for one in bad],
            },
        )
        shutil.rmtree(self.out / _PARTS, ignore_errors=True)
        self.say(f"features: {self.out}, made; fingerprint of the splits {fingerprint}")

    def _row(self, utterance: Utterance, fold: int, split: str) -> dict[str, Any]:
        row = {"id": utterance.id, "fold": fold, "split": split}
        row |= {name: value for name, value in asdict(utterance).items() if name not in {*row, "splits"}}
        row["audio"] = os.path.relpath(utterance.audio, self.recipe.corpus.folder)
        return {**row, "seconds": round(self.seconds[utterance.id], 3)}


def _fold_name(i: int, folds: Sequence[Assignment]) -> str:
    """Return the folder of a fold, or an empty string if there is only one fold."""
    return f"fold_{i}" if len(folds) > 1 else ""


def _batches(utterances: Sequence[Utterance], size: Mapping[str, float], limit: float) -> list[list[Utterance]]:
    """Group utterances in order. The sizes of a batch sum to at most ``limit``, unless it has only one utterance."""
    batches: list[list[Utterance]] = []
    room = 0.0
    for utterance in utterances:
        room -= size[utterance.id]
        if room < 0 or not batches:
            batches.append([])
            room = limit - size[utterance.id]
        batches[-1].append(utterance)
    return batches


def _or_error(function: Callable[[Any], Any], argument: Any) -> Any:
    """Return the result of a function, or the InputError that it raises."""
    try:
        return function(argument)
    except InputError as error:
        return error


def _all_known(values: Sequence[str | None]) -> tuple[str, ...] | None:
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "soxr", "soundfile", "av")}


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with written_atomically(path) as temporary:
        # The name of a file may not be valid UTF-8.
        pd.DataFrame(rows).to_csv(temporary, index=False, errors="backslashreplace")
