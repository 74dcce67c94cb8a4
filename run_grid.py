"""The door: ``python run_grid.py --help``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from study.commands import main

        sys.exit(main())
    except KeyboardInterrupt:  # before there was anything to interrupt
        sys.exit(130)
