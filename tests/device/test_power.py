"""The power goes, or the process is killed, at every step: the old sub-model or the new, never neither."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import pytest

from edvit_tf.bundle.reader import Bundle
from edvit_tf.device.engine import Runtime, installed_runtime
from edvit_tf.device.files import Files
from edvit_tf.device.identity import load_or_make
from edvit_tf.device.install import Installer
from edvit_tf.device.served import Served, Shelf
from edvit_tf.device.service import DeviceService, Facts
from edvit_tf.device.store import Store
from edvit_tf.rpc.edvit_pb2 import InstallReply, InstallRequest
from edvit_tf.runtime.check import Verdict
from edvit_tf.runtime.interpreter import Output
from tests.device.power import Disk, PowerCut, Quick, Survives
from tests.device.test_install import SIGNER, requests, settle

pytestmark = pytest.mark.fault

SURVIVORS: dict[str, Survives] = {
    "nothing": lambda _kind, _place: False,
    "all": lambda _kind, _place: True,
    "names": lambda kind, _place: kind == "name",
    "data": lambda kind, _place: kind == "data",
}
SEEDS = 8


class _Model:
    def run(self, _: np.ndarray) -> Output:
        return Output(np.zeros(1, np.float32), np.zeros(1, np.float32))


# What loads is decided by hashes alone here, so that a thousand restarts take seconds.
RUNTIME = Runtime(
    installed_runtime().name, lambda _: _Model(), lambda *_: Verdict(ok=True, reason="", microseconds=1)
)
Work = Callable[[DeviceService], Awaitable[object]]


def survivors(seed: int) -> Survives:
    random = Random(seed)
    return lambda _kind, _place: random.random() < 0.5


async def put(service: DeviceService, bundle: Bundle, made: str) -> None:
    submodel = bundle.manifest.submodels[0]

    async def stream() -> AsyncIterator[InstallRequest]:
        for request in requests(bundle, submodel.id, submodel.variant(made)):
            yield request

    last = [reply async for reply in service.install(stream())][-1]
    assert last.step == InstallReply.SERVING, last.reason


def run(path: Path, work: Work, files: Files | None = None) -> Shelf:
    """Start a device on a store, let it do something, and return what it held after the start."""

    async def story() -> Shelf:
        store = Store(path, files or Quick())
        try:
            load_or_make(store)
            installer = Installer(store, RUNTIME, 10**9, SIGNER)
            shelf = await installer.restore()
            await work(DeviceService(Facts("a" * 64, "test", RUNTIME.name, 10**9), shelf, installer))
            return shelf
        finally:
            store.close()

    return asyncio.run(story())


async def nothing(_: DeviceService) -> None:
    pass


def whole(served: Served) -> bool:
    return bool(served.held) and all(held.engine is not None for held in served.held.values())


def check_every_cut(tmp_path: Path, before: Work, work: Work, allowed: set[int], key: bytes | None) -> int:
    """Cut the power at each step of `work`; return how many restarts were checked."""
    template = tmp_path / "template"
    run(template, before)
    (template / "lock").unlink()
    cut = restarts = 0
    finished = False
    while not finished:
        cut += 1
        choices = {**SURVIVORS, **{str(seed): survivors(1000 * cut + seed) for seed in range(SEEDS)}}
        live = tmp_path / f"live-{cut}"
        shutil.copytree(template, live)
        disk = Disk(live)
        disk.cut = cut
        with suppress(PowerCut):
            run(live, work, disk)
            finished = True
        for name, survives in choices.items():
            back = tmp_path / f"back-{cut}-{name}"
            disk.write_survivors(back, survives)
            shelf = run(back, nothing)
            assert {served.version for served in shelf.generations if whole(served)} & allowed, (cut, name)
            assert all(whole(served) for served in shelf.generations), (cut, name)
            if key is not None:
                assert (back / "key.pem").read_bytes() == key
            run(back, work)
            shutil.rmtree(back)
            restarts += 1
        shutil.rmtree(live)
    assert cut > 5
    return restarts


@pytest.mark.long
def test_a_power_cut_while_a_new_version_comes(tmp_path: Path, bundle: Bundle, newer: Bundle) -> None:
    async def old(service: DeviceService) -> None:
        await put(service, bundle, "f32")

    async def new(service: DeviceService) -> None:
        await put(service, newer, "int8")
        await settle(service, newer)

    restarts = check_every_cut(tmp_path, old, new, {1, 2}, None)
    assert restarts >= 300


def test_a_power_cut_while_a_trial_is_given_up(tmp_path: Path, bundle: Bundle, newer: Bundle) -> None:
    async def both(service: DeviceService) -> None:
        await put(service, bundle, "f32")
        await put(service, newer, "int8")

    async def back(service: DeviceService) -> None:
        await settle(service, bundle)

    check_every_cut(tmp_path, both, back, {1}, None)


def test_an_identity_that_was_announced_is_never_lost(tmp_path: Path) -> None:
    """The whole store is new: its folders, too, must be there after the first file is."""
    root = tmp_path / "root"
    root.mkdir()
    disk = Disk(root)
    identity: list[str] = []

    async def story() -> None:
        store = Store(root / "deep" / "store", disk)
        identity.append(load_or_make(store).id)
        store.close()

    asyncio.run(story())
    disk.write_survivors(tmp_path / "back", SURVIVORS["nothing"])
    store = Store(tmp_path / "back" / "deep" / "store")
    assert load_or_make(store).id == identity[0]
    store.close()


@pytest.mark.long
def test_a_store_that_forgets_to_sync_would_be_found_out(
    tmp_path: Path, bundle: Bundle, newer: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: without the sync of a file's bytes it does."""
    monkeypatch.setattr("tests.device.power._OpenFile.sync", lambda _: None)

    async def old(service: DeviceService) -> None:
        await put(service, bundle, "f32")

    async def new(service: DeviceService) -> None:
        await put(service, newer, "int8")
        await settle(service, newer)

    with pytest.raises(AssertionError):
        check_every_cut(tmp_path, old, new, {1, 2}, None)


def test_a_process_that_is_killed_at_any_step(tmp_path: Path, bundle: Bundle, newer: Bundle) -> None:
    command = [sys.executable, "-m", "tests.device.killed", str(tmp_path), str(bundle.path), str(newer.path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=True, cwd=Path(__file__).parents[2]
    )
    kills = int(done.stdout)
    assert kills > 15
    for number in range(1, kills + 1):
        shelf = run(tmp_path / str(number), nothing)
        assert all(whole(served) for served in shelf.generations)
        assert {served.version for served in shelf.generations} & {1, 2}, number
