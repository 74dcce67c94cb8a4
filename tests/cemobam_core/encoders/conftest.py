"""Tiny encoders, created once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_bert, make_wav2vec2


@pytest.fixture(scope="session")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wav2vec2(tmp_path_factory.mktemp("wav2vec2"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))
