"""Split protocols, one per file: which utterances go into train, val and test. The tool finds every file here.

A protocol that keeps groups together (``text``, ``script``) can follow another one after a ``+``. The first protocol
decides who tests and validates. Then train loses the utterances whose group is in val or test, and val loses those
whose group is in test.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

import numpy as np

from cemobam_core.corpora.columns import DEFAULT_PROTOCOL, Columns
from cemobam_core.corpora.protocols.protocol import Cut, Protocol
from cemobam_core.errors import InputError

__all__ = ["PROTOCOLS", "Protocol", "cut", "default_protocol", "is_drawn"]

_BASE = "protocol"


def _found() -> dict[str, Protocol]:
    modules = [module.name for module in pkgutil.iter_modules(__path__) if module.name != _BASE]
    protocols: list[Protocol] = [import_module(f"{__name__}.{name}").PROTOCOL for name in modules]
    return {protocol.name: protocol for protocol in sorted(protocols, key=lambda one: one.place)}


PROTOCOLS: dict[str, Protocol] = _found()
"""All protocols by name (as in ``--split-protocol``), in the order of the help."""


def default_protocol(columns: Columns) -> str:
    """Return the corpus's own splits if it has some, and otherwise the paper's random protocol."""
    return "official" if any(columns.splits) else DEFAULT_PROTOCOL


def is_drawn(columns: Columns, name: str) -> bool:
    """Return whether a protocol is random for these utterances, so that the seed has an effect.

    Raises:
        InputError: No protocol has this name.
    """
    return _parsed(name)[0][1].drawn(columns)


def cut(columns: Columns, name: str, seed: int) -> tuple[list[Cut], list[str]]:
    """Split utterances by a protocol.

    Args:
        columns: The utterances.
        name: A protocol, or several with ``+`` between them.
        seed: Seed of a random protocol.

    Returns:
        The folds, and one line for the user for each protocol after a ``+`` on the utterances that it leaves out.

    Raises:
        InputError: No protocol has this name, or the utterances do not allow it.
    """
    (first, protocol), *filters = _parsed(name)
    whole = folds = protocol.cut(columns, first, seed)
    lines = []
    for _, kept_together in filters:
        before, folds = folds, [_without_shared(columns, fold, kept_together, name) for fold in folds]
        for i, (old, new) in enumerate(zip(whole, folds, strict=True)):
            if refused := _half_empty(name, first, kept_together, old, new):
                raise InputError(f"{columns.source}: {refused} (fold {i})")
        lines.append(_left_out(before, folds, kept_together))
    return folds, lines


def _parsed(name: str) -> list[tuple[str, Protocol]]:
    """Return the protocols between the ``+`` of a name, each with its part of the name."""
    parts = name.split("+")
    found = [(part, protocol) for part in parts for protocol in PROTOCOLS.values() if protocol.is_meant_by(part)]
    grouping = [protocol.name for protocol in PROTOCOLS.values() if protocol.groups]
    if len(found) < len(parts):
        raise InputError(
            f"--split-protocol {name}: unknown; choose {', '.join(PROTOCOLS)} (any shares, any number of speakers), or "
            f"one of them and {' or '.join(f'+{one}' for one in grouping)}"
        )
    for part, protocol in found[1:]:
        if not protocol.groups:
            raise InputError(
                f"--split-protocol {name}: only {' and '.join(grouping)} can follow a +; put {part} first, or leave it "
                "out"
            )
    if len(set(parts)) < len(parts):
        raise InputError(f"--split-protocol {name}: a protocol is named twice; name each once")
    return found


def _without_shared(columns: Columns, fold: Cut, kept_together: Protocol, name: str) -> Cut:
    """Return a fold without the utterances of train and val whose group is in a later split."""
    _, groups = columns.groups(kept_together.groups, name)
    test = groups[fold.test]
    val = fold.val[~np.isin(groups[fold.val], test)]
    train = fold.train[~np.isin(groups[fold.train], np.concatenate([test, groups[val]]))]
    return Cut(train, val, fold.test)


def _half_empty(name: str, first: str, kept_together: Protocol, before: Cut, after: Cut) -> str:
    """Return an error message if less than half of train or val is left, and an empty string otherwise."""
    for split, reason in (("train", "val or test"), ("val", "test")):
        had, has = len(getattr(before, split)), len(getattr(after, split))
        if 2 * has < had:
            return (
                f"--split-protocol {name} leaves {has} of {had} {split} utterances, because {reason} has the "
                f"{kept_together.group} of the others; use {kept_together.name} alone, or {first}, whose shared "
                f"{kept_together.group}s every run reports, or choose the utterances yourself with --split-file"
            )
    return ""


def _left_out(before: list[Cut], after: list[Cut], kept_together: Protocol) -> str:
    """Return a line on the utterances that were left out, summed over the folds."""
    counts = []
    for split, reason in (("train", "val or test"), ("val", "test")):
        had, has = (sum(len(getattr(fold, split)) for fold in folds) for folds in (before, after))
        counts.append(f"{had - has} of {had} {split} utterances with a {kept_together.group} in {reason}")
    over = f" (over {len(after)} folds)" if len(after) > 1 else ""
    return f"left out: {' and '.join(counts)}{over}"
