"""The golden bundle: real flatbuffers, tiny, the same for all languages."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import edvit_tf.rpc  # noqa: F401 (before a test imports gRPC: that reads its settings once)
from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.writer import write_manifest

# How long an example takes says how busy the machine is.
settings.register_profile("edvit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edvit")

# A small training is over as soon as XLA has compiled it: without optimising, that takes a quarter less.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

GOLDEN = Path(__file__).parent / "vectors" / "bundle"


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return open_bundle(GOLDEN)


@pytest.fixture
def newer(bundle: Bundle, tmp_path: Path) -> Bundle:
    """The same bundle, one version later."""
    folder = tmp_path / "newer"
    shutil.copytree(bundle.path, folder)
    write_manifest(folder, replace(bundle.manifest, version=bundle.manifest.version + 1))
    return open_bundle(folder)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pictures are kept with the tests' other files, not with the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
