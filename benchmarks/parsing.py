"""Parsing all of IEMOCAP, compared with only reading its text files and listing its folders.

    python benchmarks/parsing.py [ROOT]

Without ROOT, the script first writes an artificial release of full size: 5531 utterances of the four classes, in the
real numbers, and 4,510 others, each with a WAV file (0.01 s of tone). Parsing opens no audio. Prints both
sides, and the time of the fingerprint, which reads the size of every WAV file.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cemobam_core.corpora.classes import read_corpus
from cemobam_core.corpora.iemocap import COUNTS, IEMOCAP

T = TypeVar("T")


def listing(root: Path) -> int:
    """List every folder and read every text file, which is the minimum for any reader."""
    return sum(len(path.read_bytes()) for path in sorted(root.rglob("*")) if path.suffix == ".txt")


def main(root: Path) -> None:
    """Measure both sides."""
    seconds(f"listing and reading {root}", lambda: listing(root))
    corpus = seconds("parsing", lambda: read_corpus(IEMOCAP, root))
    seconds("fingerprint", corpus.fingerprint)
    print(*corpus.notes, f"{len(corpus.bad)} bad", sep="\n")


def seconds(what: str, work: Callable[[], T]) -> T:
    """Run ``work``, print its time and return its result."""
    start = time.perf_counter()
    result = work()
    print(f"{what}: {time.perf_counter() - start:.2f} s")
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
        from trees import make_iemocap  # type: ignore[import-not-found]

        with tempfile.TemporaryDirectory() as folder:
            sizes = {
                int(session): (anger, happiness + excited, neutral, sadness)
                for session, (anger, happiness, excited, neutral, sadness, *_) in COUNTS.items()
            }
            main(make_iemocap(Path(folder), per_class=sizes, others=451, seconds=(0.01, 0.01)))
