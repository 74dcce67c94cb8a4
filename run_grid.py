"""Run the study from a checkout: ``python run_grid.py --help``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    try:
        from study.commands import main

        sys.exit(main())
    except KeyboardInterrupt:  # during the imports
        os._exit(130)
