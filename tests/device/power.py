"""A disk that loses its power: what was not synced may be gone, file by file and name by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edvit_tf.device.files import LocalFile, LocalFiles

# Whether something that was not synced survives: "name" or "data", and where.
Survives = Callable[[str, str], bool]


class PowerCut(BaseException):
    """No handler of errors runs when the power is gone."""


class Quick(LocalFiles):
    """The real disk where nobody waits for it."""

    def append(self, path: Path) -> LocalFile:
        return _QuickFile(path)

    def sync_folder(self, path: Path) -> None:
        pass


class _QuickFile(LocalFile):
    def sync(self) -> None:
        pass


@dataclass(eq=False)
class _File:
    synced: bytes = b""
    written: bytes = b""


@dataclass(eq=False)
class _Folder:
    synced: dict[str, "_File | _Folder"] = field(default_factory=dict)
    names: dict[str, "_File | _Folder"] = field(default_factory=dict)


class Disk(LocalFiles):
    """The folder `root` on a real disk, and beside it what of it would survive.

    Operation number `cut` (from 1) and all after it raise PowerCut; a write that is cut leaves half of its
    bytes. What is in the folder at the beginning counts as synced.
    """

    def __init__(self, root: Path, cut: int | None = None) -> None:
        self.root = root
        self.cut = cut
        self.steps = 0
        self._top = _scan(root)

    def make_folder(self, path: Path) -> None:
        self._step()
        super().make_folder(path)
        self._folder(path.parent).names[path.name] = _Folder()

    def append(self, path: Path) -> LocalFile:
        self._step()
        node = self._folder(path.parent).names.setdefault(path.name, _File())
        assert isinstance(node, _File)
        return _OpenFile(self, path, node)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)
        self._folder(target.parent).names[target.name] = self._folder(source.parent).names.pop(source.name)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)
        self._folder(path.parent).names.pop(path.name, None)

    def sync_folder(self, path: Path) -> None:
        self._step()
        folder = self._folder(path)
        folder.synced = dict(folder.names)

    def free_bytes(self, path: Path) -> int:
        if self.cut is not None and self.steps >= self.cut:
            raise PowerCut
        return super().free_bytes(path)

    def write_survivors(self, target: Path, survives: Survives) -> None:
        """Write into a new folder what is there when the power is back."""
        _write(self._top, target, "", survives)

    def _step(self) -> None:
        self.steps += 1
        if self.cut is not None and self.steps >= self.cut:
            raise PowerCut

    def _folder(self, path: Path) -> _Folder:
        folder = self._top
        for part in path.relative_to(self.root).parts:
            inner = folder.names[part]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder


class _OpenFile(LocalFile):
    def __init__(self, disk: Disk, path: Path, node: _File) -> None:
        super().__init__(path)
        self._disk = disk
        self._node = node

    def write(self, data: bytes) -> None:
        try:
            self._disk._step()
        except PowerCut:
            if self._disk.steps == self._disk.cut:
                self._node.written += data[: len(data) // 2]
            raise
        super().write(data)
        self._node.written += data

    def sync(self) -> None:
        self._disk._step()
        self._node.synced = self._node.written


def _scan(path: Path) -> _Folder:
    names: dict[str, _File | _Folder] = {}
    for child in path.iterdir():
        data = b"" if child.is_dir() else child.read_bytes()
        names[child.name] = _scan(child) if child.is_dir() else _File(data, data)
    return _Folder(names, dict(names))


def _write(node: _Folder, target: Path, where: str, survives: Survives) -> None:
    target.mkdir()
    # Temporary names are random; the same choice must fall on the same file in every run.
    for name in sorted({*node.synced, *node.names}):
        old, new = node.synced.get(name), node.names.get(name)
        place = f"{where}/{name}"
        child = new if old is new or survives("name", place) else old
        if isinstance(child, _Folder):
            _write(child, target / name, place, survives)
        elif child is not None:
            keeps = child.synced == child.written or survives("data", place)
            (target / name).write_bytes(child.written if keeps else child.synced)
