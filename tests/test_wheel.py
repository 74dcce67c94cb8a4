"""The wheel holds all that the package reads, and its command."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.process
def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    for package in ("cemobam_core", "study"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, wheels, tmp_path], check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        (entry_points,) = (name for name in held if name.endswith("/entry_points.txt"))
        assert "cemobam = study.commands:cemobam" in archive.read(entry_points).decode()
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("cemobam_core", "study")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"study/papers/cemobam/claims.csv", "study/output/templates/report.html"} < files
    assert files <= held
