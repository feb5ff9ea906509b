"""A store for a device's tests, let go of at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edvit_tf.device.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store")
    yield made
    made.close()
