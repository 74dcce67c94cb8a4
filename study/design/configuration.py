"""Configurations and trials, and the signature that identifies a trial."""

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
    """All settings of one training except its seed.

    Attributes:
        profile: Name of the reading of the method, or of a configuration in a block.
        system: The system with its settings.
        graph: Settings of the graph. `None` if the system does not use a graph.
        training: Settings of the training. `None` if the shared loop does not train the system.
    """

    profile: str
    system: System
    graph: GraphConfig | None
    training: TrainingConfig | None

    @property
    def parts(self) -> list[System | GraphConfig | TrainingConfig]:
        """The parts that have settings, in the order in which a setting's name is looked up."""
        return [part for part in (self.system, self.graph, self.training) if part is not None]

    @property
    def pair(self) -> Pair | None:
        """K_audio and K_text. `None` if the system does not use a graph."""
        return Pair(self.graph.k_audio, self.graph.k_text) if self.graph else None

    def get(self, name: str) -> Value | None:
        """Return a setting by its name, or `None` if this configuration does not have it."""
        if name == "profile":
            return self.profile
        if name == "system":
            return name_of(self.system)
        value: Value | None = next((getattr(part, name) for part in self.parts if _has(part, name)), None)
        return value

    def having(self, changes: Mapping[str, Value]) -> Configuration:
        """Return the configuration with some settings changed. Settings that it does not have are ignored.

        Raises:
            InputError: If a value is out of range.
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
        """Return all settings by name."""
        parts = [part for part in (self.graph, self.system, self.training) if part is not None]
        return {f.name: getattr(part, f.name) for part in parts for f in fields(part)}


def _has(part: Any, name: str) -> bool:
    return any(f.name == name for f in fields(part))


def _as(hint: Any, value: Value) -> Value:
    """Convert a number to float if the setting is a float, so that 1 and 1.0, or 0.0 and -0.0, are one value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) + 0.0 if is_number and hint is float else value


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration with one seed on one fold: the unit that is run, recorded and resumed."""

    configuration: Configuration
    seed: int
    fold: int

    def parameters(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the values that distinguish this trial in its study: the named settings that it has, fold and seed."""
        values = {name: self.configuration.get(name) for name in names}
        known = {name: value for name, value in values.items() if value is not None}
        return {**known, "fold": self.fold, "seed": self.seed}

    def signature(self, fingerprint: str) -> str:
        """Return 16 hexadecimal digits that identify everything that may change the result.

        Only settings that differ from their defaults count, so a new setting does not change earlier signatures.

        Args:
            fingerprint: Fingerprint of the features in their splits.
        """
        return _signature(self, fingerprint)


@cache  # called many times, and takes a tenth of a millisecond
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
    """Return the settings of a system, graph or training that differ from the defaults of its class."""
    hints = get_type_hints(type(part))
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {f.name: _as(hints[f.name], values[f.name]) for f in fields(part) if values[f.name] != f.default}


def check_known(names: Iterable[str], configurations: Iterable[Configuration], what: str) -> None:
    """Raise InputError for a setting that none of the configurations has, and name similar settings."""
    configurations = list(configurations)
    # Graph settings are always known: a system without a graph ignores them, and is trained once.
    known = {name for one in configurations for name in one.settings()} | {f.name for f in fields(GraphConfig)}
    for name in names:
        if name not in known and name not in {"system", "profile"}:
            systems = ", ".join(dict.fromkeys(name_of(one.system) for one in configurations))
            hint = did_you_mean(name, known) or f"; choose from {', '.join(sorted(known))}"
            raise InputError(f"{what}: {systems} has no setting {name!r}{hint}")
