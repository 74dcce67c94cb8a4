"""The encoders of features: recorded in every feature file, and found again to encode new clips the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cemobam_core.encoders.pretrained import Pretrained, find_pretrained, hash_of
from cemobam_core.encoders.settings import FeatureSettings
from cemobam_core.errors import InputError
from cemobam_core.features import MODALITIES
from cemobam_core.fields import check_fields

RECORD = "encoders"
"""Name of the record in the metadata of a feature file."""


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """One encoder, as it was when it made the features.

    Attributes:
        name: Hub id, or absolute path of the folder.
        revision: Commit of the hub, or the hash of the files.
        hash: ``sha256:`` and a hash of the files. It identifies the encoder wherever it is copied to.
        tuned_from: Name of the encoder that this one was tuned from. Empty for an encoder that was not tuned.
    """

    name: str
    revision: str
    hash: str
    tuned_from: str = ""

    @classmethod
    def of(cls, pretrained: Pretrained, tuned_from: str = "") -> EncoderRecord:
        """Record an encoder on disk."""
        local = Path(pretrained.name).expanduser().is_dir()
        return cls(
            name=str(pretrained.folder.resolve()) if local else pretrained.name,
            revision=pretrained.revision,
            hash=hash_of(pretrained.folder),
            tuned_from=tuned_from,
        )

    def find(self, option: str, given: str | None = None) -> Pretrained:
        """Find the encoder again, and check that it is the same one.

        Args:
            option: Command-line option that names another place of the encoder.
            given: Value of the option. ``None`` to look where the encoder was.

        Raises:
            InputError: The encoder is not there, or is another one.
        """
        if given is None and Path(self.name).is_absolute() and not Path(self.name).is_dir():
            raise InputError(
                f"{self.name}: the encoder of the model is no longer there; give the folder that it was moved to "
                f"with {option} DIR"
            )
        found = find_pretrained(given or self.name, option)
        if found.revision not in (self.revision, self.hash):
            raise InputError(
                f"{option} {found.name}: is {found.revision}, but the model was trained with {self.name} "
                f"{self._identity(found)}; give that one with {option} DIR"
            )
        return found

    def _identity(self, other: Pretrained) -> str:
        """Return the revision or the hash, whichever can be compared with that of another encoder."""
        return self.hash if other.revision.startswith("sha256:") else self.revision


@dataclass(frozen=True, kw_only=True)
class EncodersRecord:
    """Both encoders of features, and the settings that decide an embedding.

    Attributes:
        audio: Audio encoder.
        text: Text encoder.
        settings: Settings of extraction. Those that concern a whole corpus have their defaults.
    """

    audio: EncoderRecord
    text: EncoderRecord
    settings: FeatureSettings

    def to_json(self) -> str:
        """Return the record as JSON, for the metadata of a feature file."""
        encoders = {modality: asdict(getattr(self, modality)) for modality in MODALITIES}
        return json.dumps({**encoders, "settings": self.settings.of_embedding()})

    @classmethod
    def of(cls, content: object) -> EncodersRecord:
        """Read a record from the content of its JSON.

        Raises:
            InputError: The content is not such a record.
        """
        if not isinstance(content, dict) or content.keys() != {*MODALITIES, "settings"}:
            raise InputError(f"{RECORD} must have {', '.join(MODALITIES)} and settings")
        known = {field.name for field in fields(EncoderRecord)}
        for modality in MODALITIES:
            one = content[modality]
            strings = isinstance(one, dict) and all(isinstance(x, str) and x.isprintable() for x in one.values())
            if not strings or one.keys() != known or not one["name"]:
                raise InputError(f"{RECORD}.{modality} must have the strings {', '.join(sorted(known))}")
        audio, text = (EncoderRecord(**content[modality]) for modality in MODALITIES)
        return cls(audio=audio, text=text, settings=_settings(content["settings"]))


def recorded(provenance: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the content of the record in the metadata of features. ``None`` if there is none or it is damaged."""
    try:
        content: dict[str, Any] = json.loads(provenance[RECORD])
        EncodersRecord.of(content)
    except (KeyError, ValueError, RecursionError, InputError):
        return None
    return content


def _settings(given: object) -> FeatureSettings:
    known, hints = FeatureSettings().of_embedding(), get_type_hints(FeatureSettings)
    if not isinstance(given, dict) or given.keys() != known.keys():
        raise InputError(f"{RECORD}.settings must have {', '.join(known)}")
    for name, value in given.items():
        if not _fits(hints[name], value):
            raise InputError(f"{RECORD}.settings: {name} is {str(value)[:40]!r}")
    settings = FeatureSettings(**given)
    check_fields(settings)
    return settings


def _fits(hint: Any, value: object) -> bool:
    """Return whether a value of a JSON file fits a type hint."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(one, value) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    return type(value) is hint
