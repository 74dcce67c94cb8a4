"""Open a report in the user's browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path


def open_page(page: Path) -> None:
    """Open a page in the browser, or print its address on a machine without a display."""
    address = page.resolve().as_uri()
    if not (has_display() and webbrowser.open(address)):
        print(f"\nopen this address in a browser: {address}")


def has_display() -> bool:
    """Return whether a browser can show a window here."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
