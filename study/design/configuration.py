"""Configurations and trials, and the signature by which a trial is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, get_type_hints

from cemobam_core.errors import InputError
from cemobam_core.graph import GraphConfig
from cemobam_core.systems import System, name_of, version_of
from cemobam_core.systems.files import did_you_mean
from cemobam_core.systems.search import Value
from cemobam_core.training.config import METHOD_VERSION, TrainingConfig
from study.design.factors import Pair


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Every setting of one training but its seed.

    Attributes:
        profile: the name of the reading of the method, or of a configuration in a block.
        system: with its choices.
        graph: the graph's choices; None: the system does not use it.
        training: how it is trained; None: the system is not trained by the shared loop.
    """

    profile: str
    system: System
    graph: GraphConfig | None
    training: TrainingConfig | None

    @property
    def parts(self) -> list[System | GraphConfig | TrainingConfig]:
        """Whatever has settings, in the order in which a name is looked for."""
        return [part for part in (self.system, self.graph, self.training) if part is not None]

    @property
    def pair(self) -> Pair | None:
        """K_audio and K_text; None: the system uses no graph."""
        return Pair(self.graph.k_audio, self.graph.k_text) if self.graph else None

    def get(self, name: str) -> Value | None:
        """Return a setting by its name; None: this configuration has no such setting."""
        if name == "profile":
            return self.profile
        if name == "system":
            return name_of(self.system)
        value: Value | None = next((getattr(part, name) for part in self.parts if _has(part, name)), None)
        return value

    def having(self, changes: Mapping[str, Value]) -> Configuration:
        """Return the configuration with some settings changed; those that it does not have are left out.

        Raises:
            InputError: a value out of range.
        """
        made = self
        for part in ("system", "graph", "training"):
            old = getattr(made, part)
            ours = {name: value for name, value in changes.items() if old is not None and _has(old, name)}
            if part == "training" and made.system is not None:
                ours = {name: value for name, value in ours.items() if not _has(made.system, name)}
            if ours:
                hints = get_type_hints(type(old))
                parts: dict[str, Any] = {part: replace(old, **{n: _as(hints[n], v) for n, v in ours.items()})}
                made = replace(made, **parts)
        return made

    def settings(self) -> dict[str, Any]:
        """Return every setting by its name."""
        parts = [part for part in (self.graph, self.system, self.training) if part is not None]
        return {f.name: getattr(part, f.name) for part in parts for f in fields(part)}


def _has(part: Any, name: str) -> bool:
    return any(f.name == name for f in fields(part))


def _as(hint: Any, value: Value) -> Value:
    """Return a number as the float that a setting asks for, so that 1 and 1.0, or 0.0 and -0.0, are one value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) + 0.0 if is_number and hint is float else value


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration with one seed on one fold: the unit that is run, recorded, resumed."""

    configuration: Configuration
    seed: int
    fold: int

    def parameters(self, names: Iterable[str]) -> dict[str, Any]:
        """Return what tells this trial from the others of its study: settings that it has, by name, fold and seed."""
        values = {name: self.configuration.get(name) for name in names}
        known = {name: value for name, value in values.items() if value is not None}
        return {**known, "fold": self.fold, "seed": self.seed}

    def signature(self, fingerprint: str) -> str:
        """Return 16 hexadecimal digits for everything that may change the result.

        Settings count where they differ from their defaults, so a new setting re-signs no trial of before.

        Args:
            fingerprint: of the features in their splits.
        """
        return _signature(self, fingerprint)


@cache  # asked for many times, and worth a tenth of a millisecond
def _signature(trial: Trial, fingerprint: str) -> str:
    configuration = trial.configuration
    system = configuration.system
    everything = {
        "system": name_of(system).rpartition(":")[2],
        "version": version_of(system),
        "choices": delta(system),
        "graph": configuration.graph and delta(configuration.graph),
        "training": configuration.training and delta(configuration.training),
        "seed": trial.seed,
        "fold": trial.fold,
        "features": fingerprint,
        "method": METHOD_VERSION,
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def delta(part: Any) -> dict[str, Any]:
    """Return the settings of a configuration that are not the defaults of its class."""
    hints = get_type_hints(type(part))
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {f.name: _as(hints[f.name], values[f.name]) for f in fields(part) if values[f.name] != f.default}


def check_known(names: Iterable[str], configurations: Iterable[Configuration], what: str) -> None:
    """Raise InputError for a setting that none of the configurations has, with the names that are like it."""
    configurations = list(configurations)
    # A system without a graph leaves its settings out: it is trained once, whatever they are.
    known = {name for one in configurations for name in one.settings()} | {f.name for f in fields(GraphConfig)}
    for name in names:
        if name not in known and name not in {"system", "profile"}:
            systems = ", ".join(dict.fromkeys(name_of(one.system) for one in configurations))
            hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
            raise InputError(f"{what}: {systems} has no setting {name!r}{hint}")
