"""What tests of several rooms share."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that wait for a busy core took 6 times the time

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def medssl_data() -> Path:
    """The folder of public records; tests that ask for it are skipped where it is absent."""
    folder = (ROOT / os.environ.get("MEDSSL_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no public records at {folder}: name their folder in MEDSSL_DATA")
    return folder
