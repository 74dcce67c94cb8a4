"""The command ``python -m study``, which is ``cemobam``."""

from __future__ import annotations

import os
import sys

try:
    from study.commands import cemobam

    sys.exit(cemobam())
except KeyboardInterrupt:  # during the imports
    os._exit(130)
