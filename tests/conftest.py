"""Fixtures that several rooms use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real imagery and reference numbers beside the repository; without it the test is skipped by name."""
    folder = Path(os.environ.get("TERRALEAN_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"real data is not at {folder}; set TERRALEAN_SHARED")
    return folder
