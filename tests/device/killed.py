"""A device that takes a new version and kills itself at one step of it: `python -m tests.device.killed`.

Takes a folder, a bundle and a newer one; leaves in the folder a store for each step, and prints how many.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from edvit_tf.bundle.reader import open_bundle
from edvit_tf.device.files import LocalFile, LocalFiles
from edvit_tf.device.service import DeviceService


class Killing(LocalFiles):
    """The real disk; the process ends with SIGKILL before operation number `kill`."""

    def __init__(self, kill: int) -> None:
        self._kill = kill
        self._steps = 0

    def make_folder(self, path: Path) -> None:
        self._step()
        super().make_folder(path)

    def append(self, path: Path) -> LocalFile:
        self._step()
        return _KillingFile(self, path)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)

    def sync_folder(self, path: Path) -> None:
        self._step()
        super().sync_folder(path)

    def _step(self) -> None:
        self._steps += 1
        if self._steps == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)


class _KillingFile(LocalFile):
    def __init__(self, files: Killing, path: Path) -> None:
        super().__init__(path)
        self._files = files

    def write(self, data: bytes) -> None:
        half = len(data) // 2
        super().write(data[:half])
        self._files._step()
        super().write(data[half:])

    def sync(self) -> None:
        self._files._step()
        super().sync()


def main(folder: Path, old: Path, new: Path) -> int:
    """Fork one device for each step; return how many were killed."""
    from tests.device.test_install import settle
    from tests.device.test_power import put, run

    bundle, newer = open_bundle(old), open_bundle(new)

    async def before(service: DeviceService) -> None:
        await put(service, bundle, "f32")

    async def work(service: DeviceService) -> None:
        await put(service, newer, "int8")
        await settle(service, newer)

    # In a child, so that this process forks without threads.
    if not (child := os.fork()):
        run(folder / "template", before)
        os._exit(0)
    os.waitpid(child, 0)
    number = 0
    while True:
        number += 1
        store = folder / str(number)
        shutil.copytree(folder / "template", store)
        if not (child := os.fork()):
            run(store, work, Killing(number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise AssertionError(f"step {number}: the device failed")
            return number - 1
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    print(main(*map(Path, sys.argv[1:4])))  # noqa: T201
