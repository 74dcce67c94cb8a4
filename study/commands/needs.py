"""The optional packages that a command line needs, checked before anything slow happens."""

from __future__ import annotations

import argparse

from cemobam_core.extras import require

_DATABASES = {
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
    "mysql+pymysql": "mysql",
}
"""The extra that brings the driver of a database, by the start of its URL."""


def check_extras(args: argparse.Namespace) -> None:
    """Check that the packages which the arguments need are installed.

    Raises:
        InputError: An extra is missing. The message says which.
    """
    given = vars(args)
    scheme = (given.get("storage") or "").partition("://")[0]
    if extra := _DATABASES.get(scheme):
        require(extra, f"--storage {scheme}://…")
    if given.get("report_only"):
        return  # it reads the ledger alone
    if given.get("engine") == "ray":
        require("ray", "--engine ray")
    for option in ("data_root", "manifest", "audio", "transcript", "asr"):
        if given.get(option) and ("audio_encoder" in given):
            require("features", f"--{option.replace('_', '-')}")
