"""What an export is made from: every option of `edvit-tf export`, from the command line or one YAML file."""

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import numpy as np

from edvit_tf.build.store import default_folder
from edvit_tf.build.widths import DEFAULT_SHARE, Widths
from edvit_tf.errors import MissingPackage, UsageError

# Where a bundle is made, and by which processes, does not change it: the manifest leaves these out.
_NOT_RECORDED = ("out", "workers", "engine", "cache")


GROUPINGS = ("random", "alike", "apart", "count")
IMPORTANCES = ("fisher", "kl")
STARTS = ("pruned", "random")
LAYERWISE = ("bytes", "latency")
WIDTHS = ("uniform", "tried", *LAYERWISE)
AUGMENTS = ("none", "randaugment", "mixup", "cutmix")
ENGINES = ("local", "ray")
AUTO = "auto"
AUTO_FORMATS = ("int8", "int8-dynamic", "int4-dynamic", "int8-full", "f16", "f32")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """Every option of an export.

    Attributes:
        model: a preset whose teacher ships with the package, or a file of `edvit-tf train` or of Keras 2.
        random_weights: take a preset's sizes and no training: for sizes, times and memory, not for accuracy.
        data: a registered data set, or a folder of class folders.
        devices: sub-models, one for each device.
        out: folder of the bundle; nothing may stand there yet.
        format: of the flatbuffers; several with commas between, the first of them is the one that counts; or
            `auto`, the fastest here of all that hold the floor.
        on_device: with `auto`, it is measured on the devices of a fleet instead of here.
        floor: with `auto`, the least fused validation accuracy; by default half a point below the best.
        target: what they are for: `any`, `cpu`, `gpu`, `browser` or `coral`; what it cannot run is refused.
        sparsity: share of zeros in the sub-models' Dense kernels, 0 to below 1, or `2:4`, two in each four;
            0 leaves the stage out.
        seed: decides every random choice.
        baselines: whether to train the single student too.
        share: of the teacher's f32 bytes, for all sub-models together.
        heads: heads that a sub-model keeps in each block; by default as many as `share` has room for.
        widths: `tried`, of some shapes that take as many bytes as the uniform one that in which a student
            learns most (with `random_weights` none learns, and it is the uniform one); that shape itself, as
            blocks, heads, channels and MLP units (`2x2x24x56`); `uniform`, the paper's, all blocks and the
            same share of each; or of each layer, chosen by importance so that a sub-model takes as many
            `bytes` or as long (`latency`, measured on this machine) as the uniform one.
        budget: of a sub-model instead of what the uniform one takes: parameters in f32 bytes, or
            milliseconds.
        groups: how classes are grouped: `random` (the paper's), `alike` or `apart` by what the teacher
            confuses, `count` by pictures, or labels with commas between and semicolons between groups.
        importance: how units are scored: `fisher`, one backward pass, or `kl`, one unit removed at a time.
        start: what training starts from: `pruned`, the teacher's units, or `random` weights of that size.
        common_epochs: of the student of all classes that all sub-models start from; with 0 there is none, and
            each is cut from the teacher by its own group's importance.
        common_cooled: whether that student's rate falls to zero before they start from it, and not only in
            their own training.
        epochs: of retraining each for its group.
        sparsity_epochs: of the TF-MOT stage.
        qat_epochs: of quantisation-aware training for `int8-full`, 0 leaves it out.
        fusion_epochs: of the fusion.
        batch: pictures in a step.
        rate: highest learning rate of retraining.
        distillation: share of the teacher in the targets, 0 to 1.
        matching: weight of the loss that matches the class token with the teacher's, 0 leaves it out.
        others: out-of-group pictures of an epoch, in the group's pictures a class; the paper's is 1.
        balance: whether classes count the same however many pictures they have.
        shift: pixels that pictures are moved by at most in training, either way.
        augment: KerasCV's augmentation in retraining: `none`, `randaugment`, `mixup` or `cutmix`.
        left_out: share of the fusion's examples that miss one sub-model or more, 0 to 1.
        proxy_images: pictures of each class that units are judged by.
        memory_mb: what each device has, for the plan; None when unknown.
        workers: trainings side by side.
        engine: what runs them: `local`, processes on this machine, or `ray`, the machines of a cluster.
        cache: folder for the results of stages; by default `EDVIT_CACHE`, or `edvit-cache` beside `out`.
        name: of the bundle; by default from model and data.
        version: of the bundle; a fleet takes only a higher one than it has.
    """

    model: str
    data: str
    devices: int
    out: str
    format: str = "int8"
    on_device: bool = False
    floor: float | None = None
    target: str = "any"
    random_weights: bool = False
    sparsity: float | str = 0.0
    seed: int = 1
    baselines: bool = False
    share: float = DEFAULT_SHARE
    heads: int | None = None
    widths: str = "tried"
    budget: float | None = None
    groups: str = "random"
    importance: str = "fisher"
    start: str = "pruned"
    common_epochs: int = 48
    common_cooled: bool = False
    epochs: int = 12
    sparsity_epochs: int = 4
    qat_epochs: int = 0
    fusion_epochs: int = 30
    batch: int = 128
    rate: float = 2e-3
    distillation: float = 0.5
    matching: float = 0.0
    others: float = 4.0
    balance: bool = True
    shift: int = 1
    augment: str = "none"
    left_out: float = 0.4
    proxy_images: int = 32
    memory_mb: float | None = None
    workers: int = min(2, os.cpu_count() or 1)
    engine: str = "local"
    cache: str | None = None
    name: str | None = None
    version: int = 1

    def __post_init__(self) -> None:
        for keys, holds, range_in_words in _RANGES:
            for key in keys:
                value = getattr(self, key)
                if value is not None and not holds(value):
                    raise UsageError(f"{_option(key)} is {value}: it must be {range_in_words}")
        for key, values in _CHOICES.items():
            value = getattr(self, key)
            if value not in values:
                raise UsageError(f"{_option(key)} is {value}: it must be one of {', '.join(values)}")
        if len(set(self.formats)) < len(self.formats):
            raise UsageError(f"--format is {self.format}: name each format once")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed is {self.seed}: it must be from 0 to {2**32 - 1}")
        self._check_stages()

    def _check_stages(self) -> None:
        """Options of stages that do not fit each other."""
        if self.sparsity != "2:4" and not (isinstance(self.sparsity, float) and 0 <= self.sparsity < 1):
            raise UsageError(
                f"--sparsity is {self.sparsity}: it must be from 0 to below 1, or 2:4 (in quotes in a file)"
            )
        if self.sparsity and self.qat_epochs:
            raise UsageError("--qat-epochs would fill the zeros of --sparsity again: choose one of them")
        if self.format == AUTO and self.target not in ("any", "cpu"):
            raise UsageError(
                f"--format auto measures this processor and knows nothing of {self.target}: name the formats"
            )
        if self.on_device and self.format != AUTO:
            raise UsageError("--on-device is where --format auto measures: add it, or leave --on-device out")
        if self.floor is not None and self.format != AUTO:
            raise UsageError("--floor is what --format auto must hold: add it, or leave --floor out")
        if self.budget is not None and self.widths not in LAYERWISE:
            raise UsageError("--budget is for widths of each layer: add --widths bytes or --widths latency")
        if self.given_widths is not None and self.heads is not None:
            raise UsageError(f"--widths {self.widths} says how many heads are kept: leave --heads out")

    @property
    def given_widths(self) -> Widths | None:
        """The widths, where they are numbers."""
        return read_widths(self.widths)

    @property
    def tries_shapes(self) -> bool:
        """Whether students are trained to choose a shape; random weights teach them nothing to choose by."""
        return self.widths == "tried" and not self.random_weights

    @property
    def layerwise(self) -> str | None:
        """The cost by which each layer's width is chosen, if they are; all others are the same in each."""
        return self.widths if self.widths in LAYERWISE else None

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that are made: those asked for, the one that counts first, or what `auto` tries."""
        if self.format == AUTO:
            return AUTO_FORMATS
        return tuple(name.strip() for name in self.format.split(","))

    @property
    def cache_folder(self) -> Path:
        """Where the results of stages are kept."""
        if self.cache:
            return Path(self.cache).expanduser()
        return default_folder(Path(self.out).absolute().parent)

    def recorded(self) -> dict[str, object]:
        """What the manifest keeps of it."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_RECORDED}

    def seed_for(self, *path: str) -> int:
        """A seed of its own for one purpose, from the one seed of the export."""
        words = [zlib.crc32(part.encode()) for part in path]
        return int(np.random.SeedSequence([self.seed, *words]).generate_state(1)[0])


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "importance": IMPORTANCES,
    "start": STARTS,
    "augment": AUGMENTS,
    "engine": ENGINES,
}

_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        ("devices", "heads", "epochs", "sparsity_epochs", "fusion_epochs", "batch", "proxy_images", "workers",
         "version"),
        lambda value: value >= 1,
        "1 or more",
    ),
    (("rate", "share", "memory_mb", "others", "budget"), lambda value: value > 0, "above 0"),
    (("matching", "common_epochs", "qat_epochs", "shift"), lambda value: value >= 0, "0 or more"),
    (("distillation", "left_out", "floor"), lambda value: 0 <= value <= 1, "from 0 to 1"),
)  # fmt: skip


def combine(config: Path | None, given: Mapping[str, object], *, out_needed: bool = True) -> ExportSettings:
    """Settings from a YAML file and from the command line, which wins.

    Args:
        config: a file that maps option names to values, or None.
        given: options by name; None for one that was not given.
        out_needed: whether `out` must be among them; a plan needs none.

    Raises:
        UsageError: an unknown option or a wrong type in the file, or a required option in neither.
    """
    values = dict(_read(config)) if config is not None else {}
    values |= {key: value for key, value in given.items() if value is not None}
    if not out_needed:
        values.setdefault("out", "")
    missing = [_option(key) for key in ("model", "data", "devices", "out") if values.get(key) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given, on the command line or in a --config file")
    return ExportSettings(**values)  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, object]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise MissingPackage("--config needs pyyaml: pip install 'edvit-tf[export]'") from None
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            f"{path} is not a YAML file that can be read: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must map option names to values, for example 'devices: 3'")
    known = {field.name for field in fields(ExportSettings)}
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = [str(key) for key in content if str(key).replace("-", "_") not in known]
    if unknown:
        raise UsageError(
            f"{path} has unknown options ({', '.join(unknown)}): known are {', '.join(sorted(known))}"
        )
    return {key: _typed(path, key, value) for key, value in values.items()}


def _typed(path: Path, key: str, value: object) -> object:
    hint = get_type_hints(ExportSettings)[key]
    kinds = get_args(hint) or (hint,)
    if value is None and NoneType in kinds:
        return None
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds if kind is not NoneType)
        raise UsageError(f"{path}: {key} is {value!r}, and it must be of type {wanted}")
    return value


def read_sparsity(text: str) -> float | str:
    """The value of --sparsity: a share, or the name of a pattern.

    Raises:
        UsageError: it is neither.
    """
    if ":" in text:
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--sparsity is {text}: it must be from 0 to below 1, or 2:4") from None


def read_widths(text: str) -> Widths | None:
    """The numbers of --widths, as `str` writes them; None for a name.

    Raises:
        UsageError: it is neither.
    """
    if text in WIDTHS:
        return None
    numbers = [int(part) if part.isascii() and part.isdecimal() else 0 for part in text.split("x")]
    if len(numbers) < len(("blocks", "heads", "channels", "MLP units")) or not all(numbers):
        raise UsageError(
            f"--widths is {text}: it must be one of {', '.join(WIDTHS)}, or blocks, heads, channels and MLP "
            "units such as 2x2x24x56, with the channels of a stem after them"
        )
    blocks, heads, width, mlp_units, *stem = numbers
    return Widths(blocks, heads, width, mlp_units, tuple(stem))


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")
