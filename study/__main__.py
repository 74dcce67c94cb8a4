"""The command ``python -m study``, which is ``cemobam``."""

from __future__ import annotations

import sys

from study.commands import cemobam

sys.exit(cemobam())
