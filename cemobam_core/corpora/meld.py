"""MELD (Poria et al., 2019): its description, and a reader of its release, MELD.Raw, or of EmoBox's rearrangement."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cemobam_core.corpora.corpus import Corpus
from cemobam_core.corpora.table import Layout, read_table
from cemobam_core.corpora.text_files import read_lines
from cemobam_core.corpora.utterances import (
    BadUtterance,
    Found,
    RawCorpus,
    Utterance,
    compared,
    counted,
    examples,
    folders,
    gathered,
    visible,
)
from cemobam_core.errors import InputError, printable

COUNTS = {
    "anger": (1109, 153, 345),
    "disgust": (271, 22, 68),
    "fear": (268, 40, 50),
    "joy": (1743, 163, 402),
    "neutral": (4710, 470, 1256),
    "sadness": (683, 111, 208),
    "surprise": (1205, 150, 281),
}
"""Number of utterances of each class in train, dev and test of the release: 9989, 1109 and 2610."""

BROKEN, ABSENT = "train_dia125_utt3", "dev_dia110_utt7"
"""Known faults of the release: a clip without an index (no moov atom), and a row without a clip. Both are neutral."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    """One split of the release.

    Attributes:
        name: Its name in the release and in ids.
        ours: Its name in our words.
        clips: Folder of its clips.
    """

    name: str
    ours: str
    clips: str

    @property
    def table(self) -> str:
        return f"{self.name}_sent_emo.csv"


_SPLITS = (
    _Split(name="train", ours="train", clips="train_splits"),
    _Split(name="dev", ours="val", clips="dev_splits_complete"),
    _Split(name="test", ours="test", clips="output_repeated_splits_test"),
)
_TREE = (
    "MELD.Raw/ with train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv, and their clips dia<D>_utt<U>.mp4 in "
    "train_splits/, dev_splits_complete/, output_repeated_splits_test/ (unpack train.tar.gz, dev.tar.gz, test.tar.gz)"
)
_LAYOUT = Layout(required=("utterance", "speaker", "emotion", "dialogue_id", "utterance_id"))
_CLIP = re.compile(r"(dia\d+_utt\d+)(\.mp4|\.wav|\.flac)", re.IGNORECASE)
_PREFERRED = (".flac", ".wav", ".mp4")
"""If a clip exists in several formats, the last of these is read: the release itself."""

_WINDOWS = {code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in b"\x81\x8d\x8f\x90\x9d"}
"""Characters of Windows-1252 that older copies of the tables contain as control characters, such as an apostrophe."""


def read_meld(root: Path) -> RawCorpus:
    """Read the three tables and find their clips. The official splits are the corpus's own.

    Args:
        root: ``MELD.Raw``, or a folder that contains it.

    Raises:
        InputError: The folder does not contain the corpus, a table cannot be read, or no utterance can be used.
    """
    places = folders(root, title=MELD.title, tree=_TREE, below=3)
    notes: list[str] = []
    found: list[Found] = []
    for split in _SPLITS:
        found += _read_split(split, places, notes)
    if not found:
        there = [child.name + "/" * child.is_dir() for child in visible(root)]
        raise InputError(
            f"{root}: not MELD; it contains {examples(there) or 'nothing'} and no clips with their tables, expected: "
            f"{_TREE}"
        )
    known = [one for one in found if isinstance(one, BadUtterance) and one.id in (BROKEN, ABSENT)]
    return gathered(
        [one for one in found if one not in known],
        (*_complete([one for one in found if isinstance(one, Utterance)], known), *notes),
        name=MELD.name,
        title=MELD.title,
        root=root,
        class_names=MELD.class_names,
        tree=_TREE,
    )


def _complete(utterances: Sequence[Utterance], known: Sequence[BadUtterance]) -> Iterator[str]:
    """Report whether all utterances are there, and the known faults of the release."""
    published = {name: sum(numbers) for name, numbers in COUNTS.items()}
    yield compared(counted(utterances, MELD.class_names), published, {"neutral": len(known)} if known else {})
    splits = Counter(u.splits[0] for u in utterances)
    totals = map(sum, zip(*COUNTS.values(), strict=True))
    yield ", ".join(
        f"{splits[split.ours]} of {total} {split.name}" for split, total in zip(_SPLITS, totals, strict=True)
    )
    if known:
        yield f"left out, known faults of the release: {', '.join(f'{one.id} ({one.reason})' for one in known)}"


def _read_split(split: _Split, places: Sequence[Path], notes: list[str]) -> Iterator[Found]:
    """Yield what one split contains. If its table or all of its clips are missing, only note it."""
    tables = [place / split.table for place in places if (place / split.table).is_file()]
    clips = _clips([place for place in places if place.name == split.clips])
    clips = clips or _clips([place for place in places if place.name in {split.name, split.ours}])
    if not tables:
        if clips:
            notes.append(f"{split.table}: not found; the {len(clips)} clips of {split.name} are not used")
        return
    rows = list(_rows(tables[0]))
    if len(tables) > 1:
        notes.append(f"{split.table}: there are {len(tables)}; {tables[0]} is used")
    if not clips:
        notes.append(f"{split.name}: no clips in a folder {split.clips}; its {len(rows)} utterances are missing")
        return
    for row in rows:
        yield _utterance(split, row, clips.pop(row.clip, None))
    if clips:
        notes.append(f"{split.name}: {len(clips)} clips without a row in {split.table}: {examples(sorted(clips))}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    clip: str
    text: str
    speaker: str
    emotion: str


def _rows(table: Path) -> Iterator[_Row]:
    seen = set()
    for row in read_table(table, _LAYOUT, "\n".join(map(_repaired, read_lines(table)))):
        dialogue, number = row.word("dialogue_id"), row.word("utterance_id")
        if not (re.fullmatch("[0-9]{1,6}", dialogue) and re.fullmatch("[0-9]{1,6}", number)):
            raise row.error(f"{dialogue!r:.60} and {number!r:.60} are not numbers of a clip")
        clip = f"dia{int(dialogue)}_utt{int(number)}"
        if clip in seen:
            raise row.error(f"{clip} occurs twice; get the file again")
        seen.add(clip)
        speaker = printable(row.text("speaker"))
        yield _Row(clip=clip, text=row.text("utterance"), speaker=speaker, emotion=row.label("emotion").lower())


def _repaired(line: str) -> str:
    """Return a line with the characters that wrong decoding made of apostrophes and quotation marks."""
    if "â€" in line:  # UTF-8 that was read as Windows-1252
        line = re.sub("â€.", lambda match: match[0].encode("cp1252", "replace").decode("utf-8", "replace"), line)
    return re.sub("Â(?=[\x80-\x9f])", "", line).translate(_WINDOWS)


def _clips(places: Sequence[Path]) -> dict[str, Path]:
    """Return the clips in some folders by name. Those with other names are passed over: final_videos_testdia….mp4."""
    found: dict[str, Path] = {}
    for place in places:
        for clip in visible(place):
            match = _CLIP.fullmatch(clip.name)
            if match and _rank(clip) > _rank(found.get(match[1].lower())):
                found[match[1].lower()] = clip
    return found


def _rank(clip: Path | None) -> int:
    return _PREFERRED.index(clip.suffix.lower()) if clip else -1


def _utterance(split: _Split, row: _Row, clip: Path | None) -> Found:
    name = f"{split.name}_{row.clip}"

    def bad(reason: str) -> BadUtterance:
        return BadUtterance(id=name, reason=reason)

    if name == BROKEN:
        return bad("its clip is broken")
    if clip is None:
        return bad("it has no clip" if name == ABSENT else f"a row of {split.table} without a clip {row.clip}.mp4")
    if row.emotion not in COUNTS:
        return bad(f"unknown emotion {row.emotion!r}")
    if not row.text:
        return bad("its transcript is empty")
    return Utterance(
        id=name,
        audio=clip,
        text=row.text,
        label=row.emotion,
        speaker=row.speaker or None,
        splits=(split.ours,),
    )


MELD = Corpus(
    name="meld",
    title="MELD",
    class_names=tuple(COUNTS),
    about=(
        "MELD is 13,708 utterances in dialogues of the series Friends, with splits of its own; annotations under "
        "GPL-3.0, clips for research, from https://affective-meld.github.io/"
    ),
    metric="wf1",
    reader=read_meld,
)
