"""The true numbers of IEMOCAP's utterances, and a corpus without files that has these numbers."""

from __future__ import annotations

from pathlib import Path

from cemobam_core.corpora.utterances import RawCorpus, Utterance

CLASSES = ("anger", "happiness", "neutral", "sadness")

TESTED = (1085, 1023, 1151, 1031, 1241)
"""Utterances of each session: what each fold of leave-one-session-out tests, as EmoBox and SUPERB publish it."""

TURNS: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "Ses01F": {
        "impro01": (11, 0, 7, 0),
        "impro02": (0, 0, 5, 20),
        "impro03": (0, 39, 8, 0),
        "impro04": (6, 0, 31, 0),
        "impro05": (20, 0, 32, 0),
        "impro06": (0, 0, 32, 23),
        "impro07": (0, 33, 4, 0),
        "script01": (44, 13, 27, 16),
        "script02": (22, 9, 18, 19),
        "script03": (44, 38, 7, 0),
    },
    "Ses01M": {
        "impro01": (7, 0, 2, 0),
        "impro02": (0, 0, 3, 27),
        "impro03": (0, 25, 16, 0),
        "impro04": (3, 0, 32, 0),
        "impro05": (15, 2, 31, 0),
        "impro06": (0, 0, 14, 34),
        "impro07": (0, 33, 6, 0),
        "script01": (11, 15, 38, 45),
        "script02": (3, 38, 59, 9),
        "script03": (43, 33, 12, 1),
    },
    "Ses02F": {
        "impro01": (4, 0, 10, 0),
        "impro02": (0, 0, 0, 28),
        "impro03": (0, 40, 0, 0),
        "impro04": (0, 0, 15, 3),
        "impro05": (3, 0, 29, 0),
        "impro06": (0, 0, 0, 32),
        "impro07": (0, 66, 0, 0),
        "impro08": (0, 7, 36, 0),
        "script01": (23, 13, 11, 21),
        "script02": (8, 7, 14, 28),
        "script03": (29, 33, 20, 1),
    },
    "Ses02M": {
        "impro01": (9, 0, 9, 0),
        "impro02": (0, 0, 1, 11),
        "impro03": (0, 35, 7, 0),
        "impro04": (1, 0, 18, 2),
        "impro05": (5, 0, 26, 0),
        "impro06": (0, 0, 20, 24),
        "impro07": (0, 43, 2, 0),
        "impro08": (0, 0, 44, 0),
        "script01": (21, 5, 23, 37),
        "script02": (2, 57, 41, 8),
        "script03": (32, 21, 36, 2),
    },
    "Ses03F": {
        "impro01": (2, 0, 3, 0),
        "impro02": (0, 4, 2, 46),
        "impro03": (0, 35, 3, 0),
        "impro04": (0, 1, 11, 6),
        "impro05": (12, 0, 42, 0),
        "impro06": (0, 0, 0, 56),
        "impro07": (0, 40, 3, 0),
        "impro08": (8, 0, 31, 0),
        "script01": (20, 23, 18, 33),
        "script02": (17, 15, 3, 28),
        "script03": (33, 10, 14, 3),
    },
    "Ses03M": {
        "impro01": (10, 0, 5, 0),
        "impro02": (2, 1, 3, 31),
        "impro03": (0, 31, 3, 0),
        "impro04": (2, 1, 23, 4),
        "impro05": (44, 1, 7, 0),
        "impro06": (0, 0, 3, 47),
        "impro07": (0, 35, 10, 0),
        "impro08": (10, 0, 49, 0),
        "script01": (24, 25, 54, 49),
        "script02": (7, 56, 19, 2),
        "script03": (49, 8, 14, 0),
    },
    "Ses04F": {
        "impro01": (13, 0, 4, 0),
        "impro02": (5, 0, 0, 13),
        "impro03": (0, 49, 0, 0),
        "impro04": (13, 0, 17, 0),
        "impro05": (15, 0, 15, 0),
        "impro06": (0, 2, 0, 28),
        "impro07": (0, 74, 4, 0),
        "impro08": (1, 4, 11, 0),
        "script01": (58, 11, 13, 6),
        "script02": (41, 6, 6, 15),
        "script03": (59, 39, 6, 0),
    },
    "Ses04M": {
        "impro01": (9, 0, 2, 0),
        "impro02": (3, 0, 1, 8),
        "impro03": (0, 32, 17, 0),
        "impro04": (0, 0, 29, 0),
        "impro05": (15, 0, 0, 0),
        "impro06": (0, 0, 4, 32),
        "impro07": (0, 34, 48, 0),
        "impro08": (10, 0, 22, 0),
        "script01": (22, 8, 22, 37),
        "script02": (6, 36, 18, 3),
        "script03": (57, 8, 19, 1),
    },
    "Ses05F": {
        "impro01": (5, 0, 10, 0),
        "impro02": (0, 0, 1, 27),
        "impro03": (0, 62, 5, 0),
        "impro04": (1, 0, 42, 8),
        "impro05": (12, 0, 30, 0),
        "impro06": (0, 0, 0, 38),
        "impro07": (0, 57, 18, 0),
        "impro08": (0, 5, 45, 0),
        "script01": (22, 15, 25, 27),
        "script02": (4, 7, 11, 32),
        "script03": (34, 13, 34, 0),
    },
    "Ses05M": {
        "impro01": (2, 0, 2, 0),
        "impro02": (5, 1, 1, 28),
        "impro03": (0, 73, 1, 0),
        "impro04": (3, 0, 40, 1),
        "impro05": (0, 0, 47, 0),
        "impro06": (0, 0, 11, 31),
        "impro07": (0, 75, 0, 0),
        "impro08": (3, 7, 34, 0),
        "script01": (31, 16, 13, 46),
        "script02": (4, 59, 7, 7),
        "script03": (44, 52, 7, 0),
    },
}
"""By speaker and script, the number of utterances of each class: 5,531, counted in EmoBox's list of IEMOCAP."""


def true_size() -> RawCorpus:
    """Return a corpus with IEMOCAP's numbers of utterances. Every sentence is another one, and no file exists."""
    utterances = []
    for speaker, scripts in TURNS.items():
        for script, counts in scripts.items():
            labels = [label for label, count in zip(CLASSES, counts, strict=True) for _ in range(count)]
            for i, label in enumerate(labels):
                name = f"{speaker}_{script}_{speaker[-1]}{i:03d}"
                turn = Utterance(
                    id=name,
                    audio=Path(f"{name}.wav"),
                    text=f"Sentence {len(utterances)}",
                    label=label,
                    speaker=speaker,
                    session=speaker[4],
                    script=script,
                )
                utterances.append(turn)
    return RawCorpus(
        name="iemocap",
        title="IEMOCAP",
        root=Path("IEMOCAP_full_release"),
        class_names=CLASSES,
        utterances=tuple(sorted(utterances, key=lambda u: u.id)),
    )
