"""A valid bundle for each test that wants one."""

from pathlib import Path

import pytest

from tests.bundle.toy import write_toy_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The folder of a valid bundle."""
    return write_toy_bundle(tmp_path / "bundle")
