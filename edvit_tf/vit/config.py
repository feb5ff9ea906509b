"""What a Vision Transformer is: its sizes, its parameters and its multiply-accumulates. No TensorFlow."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise

from edvit_tf.errors import ModelError

BYTES_PER_FLOAT = 4
STEM_KERNEL = 3
STEM_STRIDE = 2


@dataclass(frozen=True, slots=True)
class ImageSize:
    """The picture a model takes, in pixels; `channels` is 1 (grey) or 3 (RGB)."""

    height: int
    width: int
    channels: int

    def __post_init__(self) -> None:
        _require_positive("image", self.height, self.width, self.channels)


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """One encoder block: how many attention heads and how many hidden units its MLP has."""

    heads: int
    mlp_units: int

    def __post_init__(self) -> None:
        _require_positive("block", self.heads, self.mlp_units)


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """A Vision Transformer whose last block computes only the class token.

    Attributes:
        image: the picture it takes.
        patch: side of a square patch, in pixels; divides the picture's height and width.
        width: channels of the residual stream, the same in every block.
        head_size: units of one attention head, the same in every block.
        blocks: the encoder blocks, first to last; after pruning they may differ.
        classes: number of logits.
        mean: of each image channel, on the scale 0..255, subtracted from the picture.
        deviation: of each image channel, on the scale 0..255; the picture is divided by it.
        stem: channels of 3 x 3 convolutions in front of the patch embedding, each of which halves the
            picture (Xiao et al., arXiv 2106.14881); none in the original ViT.

    Raises:
        ModelError: a size is not positive, or the sizes do not fit each other.
    """

    image: ImageSize
    patch: int
    width: int
    head_size: int
    blocks: tuple[BlockConfig, ...]
    classes: int
    mean: tuple[float, ...] = field(default=())
    deviation: tuple[float, ...] = field(default=())
    stem: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _require_positive("model", self.patch, self.width, self.head_size, self.classes, len(self.blocks))
        if self.image.height % self.patch or self.image.width % self.patch:
            raise ModelError(
                f"A picture of {self.image.height} x {self.image.width} pixels cannot be cut into patches of "
                f"{self.patch} x {self.patch}: choose a patch size that divides both."
            )
        for channels in self.stem:
            _require_positive("stem", channels)
        halved = STEM_STRIDE ** len(self.stem)
        if self.patch % halved:
            raise ModelError(
                f"Behind a stem of {len(self.stem)} convolutions patches of {self.patch} x {self.patch} "
                f"pixels are not whole: choose a patch size that {halved} divides."
            )
        # Without figures of a data set the pixels are brought to -1..1.
        for name in ("mean", "deviation"):
            if not getattr(self, name):
                object.__setattr__(self, name, (127.5,) * self.image.channels)
            if len(getattr(self, name)) != self.image.channels:
                raise ModelError(f"The model's {name} needs one number for each of the image's channels.")
        if not all(math.isfinite(number) for number in self.mean):
            raise ModelError("The model's mean must be finite.")
        if not all(math.isfinite(number) and number > 0 for number in self.deviation):
            raise ModelError("The model's deviation must be finite and above zero.")

    @property
    def patches(self) -> int:
        """Patches in a picture."""
        return (self.image.height // self.patch) * (self.image.width // self.patch)

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return self.patches + 1

    @property
    def embedded_patch(self) -> int:
        """Side of a patch where the patch embedding sees it, behind the stem."""
        return self.patch // int(STEM_STRIDE ** len(self.stem))

    @property
    def embedded_channels(self) -> int:
        """Channels that the patch embedding sees: the stem's last, or the picture's."""
        return self.stem[-1] if self.stem else self.image.channels

    @property
    def parameters(self) -> int:
        """Numbers that training changes."""
        return sum(math.prod(shape) for shape in weight_shapes(self).values())

    @property
    def f32_bytes(self) -> int:
        """Bytes of all parameters as 32-bit floats."""
        return BYTES_PER_FLOAT * self.parameters

    @property
    def embedding_macs(self) -> int:
        """Of the stem, each convolution at a quarter of the places before it, and of the patch embedding."""
        pixels = self.image.height * self.image.width
        stem = sum(
            pixels // int(STEM_STRIDE ** (2 * depth)) * STEM_KERNEL**2 * inputs * outputs
            for depth, (inputs, outputs) in enumerate(pairwise((self.image.channels, *self.stem)), start=1)
        )
        return stem + self.patches * self.embedded_patch**2 * self.embedded_channels * self.width

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one picture, the last block computing only the class token."""
        *all_but_last, last = self.blocks
        return (
            self.embedding_macs
            + sum(_block_macs(self, block, self.tokens) for block in all_but_last)
            + _block_macs(self, last, 1)
        )

    @property
    def macs_of_all_tokens(self) -> int:
        """Multiply-accumulates of one picture if the last block computed every token, as papers count."""
        return self.embedding_macs + sum(_block_macs(self, block, self.tokens) for block in self.blocks)

    def with_classes(self, classes: int) -> "ViTConfig":
        """The same model with another number of logits."""
        return replace(self, classes=classes)

    def to_json(self) -> dict[str, object]:
        """Plain dicts, lists and numbers; `from_json` is its inverse."""
        return asdict(self) | {
            "blocks": [asdict(block) for block in self.blocks],
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "stem": list(self.stem),
        }

    @staticmethod
    def from_json(value: object) -> "ViTConfig":
        """The config that `to_json` wrote.

        Raises:
            ModelError: something is missing, unknown or of a wrong type.
        """
        # Models from before there were stems do not name one.
        known = {"stem": [], **value} if isinstance(value, Mapping) else value
        entries = _entries("model", known, [item.name for item in fields(ViTConfig)])
        blocks = entries["blocks"]
        if not isinstance(blocks, list):
            raise ModelError("The model's configuration is broken: 'blocks' is not a list.")
        return ViTConfig(
            image=ImageSize(**_sizes("image", entries["image"], ImageSize)),
            patch=_whole("patch", entries["patch"]),
            width=_whole("width", entries["width"]),
            head_size=_whole("head_size", entries["head_size"]),
            blocks=tuple(BlockConfig(**_sizes("block", block, BlockConfig)) for block in blocks),
            classes=_whole("classes", entries["classes"]),
            mean=_numbers("mean", entries["mean"]),
            deviation=_numbers("deviation", entries["deviation"]),
            stem=_whole_numbers("stem", entries["stem"]),
        )


def weight_shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    """Name ("<layer>/<weight>") and shape of every weight of a model, in the order of the computation.

    This is the one list of what a model is made of: the Keras model, checkpoints and surgery are held to it.
    """
    width = config.width
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (inputs, outputs) in enumerate(pairwise((config.image.channels, *config.stem))):
        shapes[f"stem_{index}/kernel"] = (STEM_KERNEL, STEM_KERNEL, inputs, outputs)
        shapes[f"stem_{index}/bias"] = (outputs,)
    patch = config.embedded_patch
    shapes |= {
        "patch_embedding/kernel": (patch, patch, config.embedded_channels, width),
        "patch_embedding/bias": (width,),
        "class_token/token": (width,),
        "position_embedding/positions": (config.tokens, width),
    }
    for index, block in enumerate(config.blocks):
        units = block.heads * config.head_size
        name = f"block_{index}"
        shapes |= _norm(f"{name}_attention_norm", width)
        shapes |= _dense(f"{name}_query", width, units)
        shapes |= _dense(f"{name}_key", width, units)
        shapes |= _dense(f"{name}_value", width, units)
        shapes |= _dense(f"{name}_projection", units, width)
        shapes |= _norm(f"{name}_mlp_norm", width)
        shapes |= _dense(f"{name}_mlp_up", width, block.mlp_units)
        shapes |= _dense(f"{name}_mlp_down", block.mlp_units, width)
    return shapes | _norm("final_norm", width) | _dense("head", width, config.classes)


def _dense(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/gamma": (width,), f"{name}/beta": (width,)}


def _block_macs(config: ViTConfig, block: BlockConfig, queries: int) -> int:
    """n·d·3hk + 2·n²·hk + n·hk·d + 2·n·d·m; query, projection and MLP work on `queries` of the n tokens."""
    tokens, width, units = config.tokens, config.width, block.heads * config.head_size
    return (
        (queries + 2 * tokens) * width * units
        + 2 * queries * tokens * units
        + queries * units * width
        + 2 * queries * width * block.mlp_units
    )


def _require_positive(what: str, *sizes: int) -> None:
    if any(size < 1 for size in sizes):
        raise ModelError(f"Every size of a model must be 1 or more; the {what} has {min(sizes)}.")


def _entries(what: str, value: object, names: list[str]) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise ModelError(
            f"The model's configuration is broken: its {what} must hold exactly {', '.join(names)}."
        )
    return value


def _sizes(what: str, value: object, kind: type[ImageSize | BlockConfig]) -> dict[str, int]:
    entries = _entries(what, value, [item.name for item in fields(kind)])
    return {name: _whole(name, size) for name, size in entries.items()}


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"The model's configuration is broken: '{name}' must be a whole number.")
    return value


def _whole_numbers(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ModelError(f"The model's configuration is broken: '{name}' must be a list of whole numbers.")
    return tuple(_whole(name, number) for number in value)


def _numbers(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise ModelError(f"The model's configuration is broken: '{name}' must be a list of numbers.")
    return tuple(float(number) for number in value)


def _preset(
    image: ImageSize, patch: int, head_size: int, heads: int, depth: int, stem: tuple[int, ...] = ()
) -> ViTConfig:
    width = heads * head_size
    blocks = (BlockConfig(heads, 4 * width),) * depth
    return ViTConfig(image, patch, width, head_size, blocks, classes=10, stem=stem)


PRESETS: Mapping[str, ViTConfig] = {
    "vit-s16": _preset(ImageSize(224, 224, 3), patch=16, head_size=64, heads=6, depth=12),
    "vit-s32": _preset(ImageSize(224, 224, 3), patch=32, head_size=64, heads=6, depth=12),
    "vit-b16": _preset(ImageSize(224, 224, 3), patch=16, head_size=64, heads=12, depth=12),
    "vit-l16": _preset(ImageSize(224, 224, 3), patch=16, head_size=64, heads=16, depth=24),
    "fashion-vit": _preset(ImageSize(28, 28, 1), patch=7, head_size=16, heads=6, depth=4),
    "fashion-stem-vit": _preset(ImageSize(32, 32, 1), patch=8, head_size=16, heads=6, depth=4, stem=(24, 48)),
    "cifar-vit": _preset(ImageSize(32, 32, 3), patch=8, head_size=16, heads=6, depth=4, stem=(48, 96)),
    "sound-vit": _preset(ImageSize(40, 48, 1), patch=8, head_size=16, heads=6, depth=4),
}
