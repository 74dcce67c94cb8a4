"""Optional parts of the installation, and the error that names the one that is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from cemobam_core.errors import InputError

EXTRAS = {
    "ray": ("ray",),
    "features": ("transformers", "huggingface_hub", "soundfile", "soxr"),
    "dashboard": ("optuna_dashboard", "waitress", "plotly"),
    "postgresql": ("psycopg",),
    "mysql": ("pymysql",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
}
"""The modules that each extra of ``pyproject.toml`` installs, by the extra's name."""


def require(extra: str, purpose: str) -> None:
    """Raise an error if the packages of an extra are not installed.

    Args:
        extra: its name, a key of `EXTRAS`.
        purpose: what needs it, as the start of a sentence: ``--engine ray``, ``cemobam dashboard``.

    Raises:
        InputError: A package is missing; the message gives the command that installs it.
    """
    if missing := [module for module in EXTRAS[extra] if not installed(module)]:
        names = ", ".join(missing)
        raise InputError(
            f"{purpose} needs {names}, which is not installed. Install it with: pip install 'cemobam-study[{extra}]'"
        )


def installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # a module that was put into sys.modules by hand has no spec
        return import_module(module) is not None
