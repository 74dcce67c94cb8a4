"""MSP-IMPROV (Busso et al., 2017): its description, and a reader of its release.

The corpus needs a licence and was not at hand. The layout below is the one that the public readers of several research
groups expect: labels in ``Evalution.txt`` (spelled like this; some copies have ``Evaluation.txt``), clips below
``session1`` to ``session6``, and one text file per turn in ``All_human_transcriptions``. The counts are those of the
paper, Tables 3 and 4.

A name such as ``MSP-IMPROV-S01A-F01-P-FM02`` tells the target sentence (01) with its emotion (A), the actor who leads
the scene (F01, which also gives the session), the kind of recording (P, between the scenes; R, the target sentence
read; S, an improvised turn; T, the target sentence improvised), and the turn. Scenes contain turns FM and MF of both
actors, so the first of these letters is taken for the actor who speaks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cemobam_core.corpora.corpus import Corpus
from cemobam_core.corpora.text_files import read_lines
from cemobam_core.corpora.utterances import (
    BadUtterance,
    Found,
    RawCorpus,
    Utterance,
    compared,
    counted,
    examples,
    find_root,
    folders,
    gathered,
    listed,
    visible,
)

COUNTS = {"anger": 792, "happiness": 2644, "neutral": 3477, "sadness": 885}
"""Number of turns of each class in the release: 7798 of 8438. 85 have another emotion, and 555 no agreement."""

SESSIONS = ("1", "2", "3", "4", "5", "6")

_TABLES = ("Evalution.txt", "Evaluation.txt")
_TREE = (
    "Evalution.txt, session{1..6}/<sentence>/<kind>/MSP-IMPROV-<turn>.wav and "
    "All_human_transcriptions/MSP-IMPROV-<turn>.txt"
)
_CLASSES = {"A": "anger", "H": "happiness", "N": "neutral", "S": "sadness"}
_LEFT_OUT = {"O": "other", "X": "without agreement"}
_KINDS = {"P": "natural", "R": "scripted", "S": "improvised", "T": "improvised"}

_TURN = re.compile(r"(?:MSP|UTD)-IMPROV-((S\d\d)[AHNS]-[FM](\d\d)-([PRST])-([FM])[FM]\d+)")
"""Parts of a name: turn, target sentence, session, kind of recording, and who speaks."""
_LINE = re.compile(r"((?:MSP|UTD)-IMPROV-\S+)\.(?:avi|wav)\s*;\s*([A-Z])\s*;(.*)")
"""A label line, for example ``UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.500000; V:3.000000; D:2.900000 ; N:3.4;``.

The numbers are activation, valence, dominance and naturalness.
"""
_RATING = re.compile(r"\b([AVD])\s*:\s*(\d{1,9}(?:\.\d{1,9})?)")


def read_msp_improv(root: Path) -> RawCorpus:
    """Read the turns of the four classes in the release. Transcripts are optional.

    Args:
        root: Folder of ``Evalution.txt``, or a folder that contains it.

    Raises:
        InputError: The folder does not contain the corpus, or none of its turns can be used.
    """
    root = find_root(
        root, holds=lambda folder: any((folder / t).is_file() for t in _TABLES), title=MSP_IMPROV.title, tree=_TREE
    )
    table = next(root / name for name in _TABLES if (root / name).is_file())
    clips, transcripts = _files(root)
    left_out: Counter[str] = Counter()
    labels: dict[str, re.Match[str]] = {}
    found: list[Found] = []
    for number, line in enumerate(read_lines(table), 1):
        if not line.startswith(("UTD-IMPROV-", "MSP-IMPROV-")):
            continue  # the raters' own lines
        match = _LINE.fullmatch(line)
        turn = _TURN.fullmatch(match[1]) if match else None
        if match is None or turn is None:
            found.append(
                BadUtterance(id=f"{table.name} line {number}", reason=f"not the label of a turn: {line[:80]!r}")
            )
        elif match[2] in _LEFT_OUT:
            left_out[_LEFT_OUT[match[2]]] += 1
            clips.pop(turn[1], None)
        elif turn[1] in labels:
            if labels[turn[1]][2] != match[2]:
                found.append(BadUtterance(id=f"{table.name} line {number}", reason=f"another label for {turn[1]}"))
        else:
            labels[turn[1]] = match
            found.append(_utterance(turn, match, clips.pop(turn[1], None), transcripts))
    notes = list(_complete([one for one in found if isinstance(one, Utterance)]))
    if left_out:
        notes.append(f"left out, because they are not in the four classes: {listed(dict(left_out))}")
    if not transcripts:
        notes.append(f"no transcripts: there is no folder All_human_transcriptions in {root}")
    if clips:
        notes.append(
            f"{len(clips)} WAV files without a label: {examples(sorted(path.stem for path in clips.values()))}"
        )
    return gathered(
        found,
        notes,
        name=MSP_IMPROV.name,
        title=MSP_IMPROV.title,
        root=root,
        class_names=MSP_IMPROV.class_names,
        tree=_TREE,
    )


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the clips and the transcripts by turn."""
    clips: dict[str, Path] = {}
    transcripts: dict[str, Path] = {}
    for folder in folders(root, title=MSP_IMPROV.title, tree=_TREE, below=5):
        human = any("human_transcription" in part.lower() for part in folder.relative_to(root).parts)
        for path in visible(folder):
            if turn := _TURN.fullmatch(path.stem):
                if path.suffix.lower() == ".wav":
                    clips.setdefault(turn[1], path)
                elif human and path.suffix.lower() == ".txt":
                    transcripts.setdefault(turn[1], path)
    return clips, transcripts


def _complete(utterances: Sequence[Utterance]) -> Iterator[str]:
    """Report whether all turns are there, and which sessions are missing."""
    yield compared(counted(utterances, MSP_IMPROV.class_names), COUNTS)
    there = {u.session for u in utterances}
    if missing := [session for session in SESSIONS if session not in there]:
        yield f"no turns of session {', '.join(missing)}"


def _utterance(turn: re.Match[str], line: re.Match[str], clip: Path | None, transcripts: Mapping[str, Path]) -> Found:
    name = f"MSP-IMPROV-{turn[1]}"

    def bad(reason: str) -> BadUtterance:
        return BadUtterance(id=name, reason=reason)

    if line[2] not in _CLASSES:
        return bad(f"unknown label {line[2]!r}")
    if clip is None:
        return bad("it has a label, but no WAV file")
    text = ""
    if transcripts:
        if turn[1] not in transcripts:
            return bad("it has a label, but no transcript")
        text = " ".join(" ".join(read_lines(transcripts[turn[1]])).split())
        if not text:
            return bad("its transcript is empty")
    _, sentence, session, kind, speaker = turn.groups()
    ratings = {letter: float(number) for letter, number in _RATING.findall(line[3])}
    return Utterance(
        id=name,
        audio=clip,
        text=text,
        label=_CLASSES[line[2]],
        speaker=f"{speaker}{session}",
        session=str(int(session)),
        script=sentence,
        scenario=_KINDS[kind],
        activation=ratings.get("A"),
        valence=ratings.get("V"),
        dominance=ratings.get("D"),
    )


MSP_IMPROV = Corpus(
    name="msp-improv",
    title="MSP-IMPROV",
    class_names=tuple(COUNTS),
    about=(
        "MSP-IMPROV is improvised English scenes of twelve actors in six sessions, for research under a licence of the "
        "University of Texas at Dallas, which asks for a signed form at "
        "https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html"
    ),
    reader=read_msp_improv,
)
