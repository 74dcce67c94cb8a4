"""Optional dependencies, and the error that says which one to install."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from cemobam_core.errors import InputError

EXTRAS = {
    "ray": ("ray",),
    "features": ("transformers", "huggingface_hub", "soundfile", "soxr", "av", "sentencepiece"),
    "index": ("faiss",),
    "page": ("gradio",),
    "dashboard": ("optuna_dashboard", "waitress", "plotly"),
    "postgresql": ("psycopg",),
    "mysql": ("pymysql",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
}
"""The modules that each extra of ``pyproject.toml`` installs, by the name of the extra."""


def require(extra: str, purpose: str) -> None:
    """Raise an error if the packages of an extra are not installed.

    Args:
        extra: Name of the extra, a key of ``EXTRAS``.
        purpose: Feature that needs the extra, such as ``--engine ray``. It starts the message.

    Raises:
        InputError: A package is missing. The message gives the command that installs it.
    """
    if absent := missing(extra):
        *first, last = absent
        names = f"{', '.join(first)} and {last}, which are" if first else f"{last}, which is"
        raise InputError(
            f"{purpose} needs {names} not installed; install {'them' if first else 'it'} with: {installation(extra)}"
        )


def installation(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'cemobam-study[{extra}]'"


def missing(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra] if not installed(module)]


def installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # a module that was added to sys.modules by hand has no spec
        return import_module(module) is not None
