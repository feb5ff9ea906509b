"""What every flatbuffer must be before it goes into a bundle, and the facts that the manifest says of it."""

from dataclasses import dataclass, replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edvit_converters.formats import FORMATS, UNTRAINED_COSINE, Format, find
from edvit_tf.bundle.manifest import TensorSpec
from edvit_tf.errors import ModelError
from edvit_tf.runtime.check import cosine
from edvit_tf.runtime.ensemble import Answers, run_many
from edvit_tf.runtime.interpreter import SIGNATURE, Flatbuffer
from edvit_tf.vit.checkpoint import Checkpoint
from edvit_tf.vit.config import ViTConfig
from edvit_tf.vit.model import from_checkpoint


@dataclass(frozen=True, slots=True)
class Facts:
    """What the manifest says of a variant, and how far its outputs are from Keras's.

    `cosine` is the smaller of feature's and logits', `difference` the larger, a fraction of the largest
    output; `agreement` is the share of pictures with the same first class.
    """

    partitions: int
    arena_bytes: int
    operators: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cosine: float
    difference: float
    agreement: float


def keras_answers(model: Checkpoint, images: NDArray[np.uint8]) -> Answers:
    """What Keras makes of images uint8 [n, h, w, c]: the truth that flatbuffers are held against."""
    outputs = from_checkpoint(model).predict_on_batch(images)
    return Answers(np.asarray(outputs["feature"], np.float32), np.asarray(outputs["logits"], np.float32))


def check(
    flatbuffer: bytes,
    format_name: str,
    config: ViTConfig,
    images: NDArray[np.uint8],
    expected: Answers,
    *,
    trained: bool = True,
) -> Facts:
    """Hold a sub-model's flatbuffer against what is promised of every one.

    Args:
        flatbuffer: what `convert` made.
        format_name: the format, whose tolerance is applied.
        config: of the model it was made from.
        images: uint8 [n, height, width, channels], n at least 1.
        expected: what `keras_answers` gave for the same images.
        trained: whether its weights are; what random ones make of rounding grows with their depth.

    Raises:
        ModelError: an operator is not built in, a shape is not static, the signature is another one, or the
            outputs are further from Keras's than the format's tolerance.
    """
    chosen = find(format_name)
    check_graph(flatbuffer)
    loaded = Flatbuffer(flatbuffer)
    _check_signature(loaded, config)
    answers = run_many(flatbuffer, images)
    closest, difference, agreement = _agreement(answers, expected, chosen.name)
    _judge(_tolerance(chosen, trained=trained), closest, difference, agreement)
    return Facts(
        partitions=loaded.delegate_partitions(),
        arena_bytes=loaded.arena_bytes(),
        operators=loaded.operators(),
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        cosine=closest,
        difference=difference,
        agreement=agreement,
    )


def check_graph(flatbuffer: bytes) -> None:
    """Refuse operators that are not built in and shapes that are not static, before anything is run.

    Raises:
        ModelError: it has one, or is no flatbuffer.
    """
    if not schema.Model.ModelBufferHasIdentifier(flatbuffer, 0):
        raise ModelError("The converter gave something that is no TFLite flatbuffer.", code="model.load")
    model = schema.ModelT.InitFromPackedBuf(flatbuffer, 0)
    custom = sorted({code.customCode.decode() for code in model.operatorCodes if code.customCode})
    if custom:
        raise ModelError(
            f"The flatbuffer needs operators that no device has built in: {', '.join(custom)}.",
            code="model.operators",
        )
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.shapeSignature is not None and -1 in tensor.shapeSignature:
                raise ModelError(
                    f"The tensor {tensor.name.decode()} has a shape that is not known before it runs, which "
                    f"keeps the whole "
                    "graph off the fast kernels.",
                    code="model.shape",
                )


def _check_signature(loaded: Flatbuffer, config: ViTConfig) -> None:
    image = config.image
    expected = {
        "image": ((1, image.height, image.width, image.channels), "uint8"),
        "feature": ((1, config.width), "float32"),
        "logits": ((1, config.classes), "float32"),
    }
    found = {tensor.name: (tensor.shape, tensor.dtype) for tensor in (*loaded.inputs, *loaded.outputs)}
    if loaded.signatures != (SIGNATURE,) or found != expected or len(loaded.inputs) != 1:
        raise ModelError(
            f"The flatbuffer has signatures {list(loaded.signatures)} with {found} where {SIGNATURE} with "
            f"{expected} belongs.",
            code="model.signature",
        )


def _agreement(answers: Answers, expected: Answers, name: str) -> tuple[float, float, float]:
    """Return the smaller cosine and the larger difference of feature and logits, and the top-1 agreement."""
    pairs = ((answers.features, expected.features), (answers.logits, expected.logits))
    for found, wanted in pairs:
        if found.shape != wanted.shape or not np.isfinite(found).all():
            raise ModelError(
                f"The {name} flatbuffer gives numbers that are not finite or of shape {found.shape} "
                f"instead of {wanted.shape}.",
                code="model.agreement",
            )
    closest = min(cosine(found, wanted) for found, wanted in pairs)
    difference = max(float(np.abs(found - wanted).max() / np.abs(wanted).max()) for found, wanted in pairs)
    same = answers.logits.argmax(axis=1) == expected.logits.argmax(axis=1)
    return closest, difference, float(same.mean())


def _tolerance(chosen: Format, *, trained: bool) -> Format:
    """The format with what is asked of these weights."""
    if trained or chosen.least_cosine >= FORMATS["f16"].least_cosine:
        return chosen
    return replace(chosen, least_cosine=UNTRAINED_COSINE, largest_difference=1.0, least_agreement=0.0)


def _judge(asked: Format, closest: float, difference: float, agreement: float) -> None:
    if (
        closest < asked.least_cosine
        or difference > asked.largest_difference
        or agreement < asked.least_agreement
    ):
        raise ModelError(
            f"The {asked.name} flatbuffer is too far from the Keras model: cosine {closest:.4f} (at least "
            f"{asked.least_cosine}), difference {difference:.4f} (at most {asked.largest_difference}), the "
            f"same first class for {agreement:.1%} of the pictures (at least {asked.least_agreement:.1%}). "
            "Choose another format.",
            code="model.agreement",
        )
