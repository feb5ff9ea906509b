"""An accelerator that is not there costs its speed and a loud sentence, never the device."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edvit_tf.errors import UsageError
from edvit_tf.runtime.delegate import find_accelerator

LIBRARY = "libedgetpu.so.1"
# What a delegate library exports, and how it says that there is no device.
STAND_IN = """
#include <stddef.h>
#include <stdlib.h>
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    %s
    return NULL;
}
void tflite_plugin_destroy_delegate(void *delegate) {}
"""
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the dynamic loader looks first."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    return tmp_path


def compiled(folder: Path, body: str) -> None:
    source = folder / "stand_in.c"
    source.write_text(STAND_IN % body, "utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / LIBRARY), str(source)], check=True)


def test_without_the_option_the_reason_says_how_to_ask() -> None:
    found = find_accelerator("")
    assert (found.name, found.library, found.target) == ("", "", "")
    assert "--delegate edgetpu" in found.reason


def test_another_delegate_is_refused() -> None:
    with pytest.raises(UsageError, match="choose one of edgetpu"):
        find_accelerator("abacus")


@pytest.mark.usefixtures("folder")
def test_a_library_that_is_not_installed_is_a_reason() -> None:
    found = find_accelerator("edgetpu")
    assert not found.name
    assert found.reason.startswith(f"{LIBRARY} cannot be used: ")


def test_a_library_that_is_none_is_a_reason(folder: Path) -> None:
    (folder / LIBRARY).write_bytes(b"not a library at all")
    found = find_accelerator("edgetpu")
    assert not found.name
    assert LIBRARY in found.reason
    assert found.target == ""


@needs_compiler
def test_a_library_that_finds_no_device_is_a_reason(folder: Path) -> None:
    compiled(folder, 'report("no Edge TPU is plugged in");')
    found = find_accelerator("edgetpu")
    assert (found.name, found.library) == ("", "")
    assert "no Edge TPU is plugged in" in found.reason


@needs_compiler
def test_a_library_that_crashes_takes_nothing_with_it(folder: Path) -> None:
    compiled(folder, "abort();")
    assert "it crashed (SIGABRT)" in find_accelerator("edgetpu").reason


def test_a_device_without_its_accelerator_says_so_and_goes_on(folder: Path) -> None:
    (folder / LIBRARY).write_bytes(b"not a library at all")
    arguments = ["--store", str(folder / "store"), "--port", "0", "--interface", "127.0.0.1"]
    command = [sys.executable, "-m", "edvit_tf.cli.main", "device", "run", "--json", *arguments]
    with subprocess.Popen(
        [*command, "--delegate", "edgetpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as device:
        assert device.stdout is not None
        assert device.stderr is not None
        assert '"waiting"' in device.stdout.readline()  # it shows its code all the same
        device.send_signal(signal.SIGTERM)
        said = device.stderr.read()
    assert f"NO ACCELERATOR: {LIBRARY} cannot be used" in said
