"""What a fleet answers to one picture, and how device replies become it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edvit_tf.bundle.manifest import Manifest
from edvit_tf.errors import DeviceError, EdvitError
from edvit_tf.rpc.codecs import RAW
from edvit_tf.rpc.edvit_pb2 import InferReply, InferRequest

_WIRE_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class DeviceReply:
    """One device's part in an answer.

    `features` maps sub-models to float32 [d]; it is empty when the device did not answer rightly, and `error`
    says why. `milliseconds` is what the aggregator saw (0 when nothing came), `interpreter_milliseconds` and
    `decode_milliseconds` what the device says its interpreter and its codec took. `codec` is the one in which
    the picture went to it, empty when it did not. The sizes are those of the messages, without gRPC's frames.
    """

    device: str
    name: str
    submodels: tuple[str, ...]
    features: Mapping[str, np.ndarray]
    milliseconds: float
    interpreter_milliseconds: float
    sent_bytes: int
    received_bytes: int
    codec: str = RAW
    decode_milliseconds: float = 0.0
    error: EdvitError | None = None

    def to_json(self) -> dict[str, object]:
        """One device's part as the aggregator's interfaces give it."""
        return {
            "device": self.device,
            "name": self.name,
            "submodels": list(self.submodels),
            "milliseconds": self.milliseconds,
            "interpreter_milliseconds": self.interpreter_milliseconds,
            "codec": self.codec,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "error": self.error.message if self.error else "",
            "code": self.error.code if self.error else "",
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What the fleet says of one picture.

    `probabilities` are in the order of the manifest's classes. `weak_classes` are labels that only sub-models
    know that did not answer (`missing`, by id): the answer is less sure about these.
    """

    label: str
    probabilities: tuple[float, ...]
    complete: bool
    answered: int
    expected: int
    missing: tuple[str, ...]
    weak_classes: tuple[str, ...]
    milliseconds: float
    devices: tuple[DeviceReply, ...]

    def to_json(self) -> dict[str, object]:
        """The answer as one line of `infer`."""
        return {
            "label": self.label,
            "probabilities": list(self.probabilities),
            "complete": self.complete,
            "answered": self.answered,
            "expected": self.expected,
            "missing": list(self.missing),
            "weak_classes": list(self.weak_classes),
            "milliseconds": self.milliseconds,
        }


def weak_classes(manifest: Manifest, missing: Sequence[str]) -> tuple[str, ...]:
    """Labels, in the manifest's order, that only the missing sub-models know."""
    known = {
        label for submodel in manifest.submodels if submodel.id not in missing for label in submodel.classes
    }
    return tuple(label for label in manifest.classes if label not in known)


def features_of(
    reply: InferReply, request: InferRequest, manifest: Manifest, who: str
) -> dict[str, np.ndarray]:
    """Read a device's reply, believing nothing: {sub-model: feature float32 [d]}.

    Raises:
        DeviceError: `device.reply`, naming the device (`who`) and what is wrong.
    """
    if reply.request_id != request.request_id:
        raise _garbage(who, "it answers another question")
    if reply.bundle_version != request.bundle_version or request.manifest not in (b"", reply.manifest):
        raise _garbage(who, f"it answers from version {reply.bundle_version}")
    outputs = {output.submodel: output for output in reply.outputs}
    if len(outputs) != len(reply.outputs) or outputs.keys() != set(request.submodels):
        raise _garbage(who, "it answers for other sub-models than it was asked")
    features = {}
    for submodel, output in outputs.items():
        variant = manifest.submodel(submodel).variants[0]
        feature, logits = output.feature, output.logits
        for data, size in (feature, variant.feature_size), (logits, variant.logits_size):
            if len(data) != 4 * size:
                raise _garbage(who, f"{submodel} gives {len(data)} bytes where {4 * size} belong")
        numbers = np.frombuffer(feature + logits, _WIRE_FLOAT)
        if not np.isfinite(numbers).all():
            raise _garbage(who, f"{submodel} gives numbers that are not finite")
        features[submodel] = numbers[: variant.feature_size].astype(np.float32)
    return features


def _garbage(who: str, what: str) -> DeviceError:
    return DeviceError(f"the answer of {who} is left out: {what}", code="device.reply")


def fused_answer(
    manifest: Manifest,
    probabilities: np.ndarray,
    replies: Sequence[DeviceReply],
    milliseconds: float,
) -> Answer:
    """Put an answer together from the fusion's probabilities [classes] and the devices' replies.

    Raises:
        DeviceError: when the fusion gives numbers that are not finite.
    """
    order = manifest.fusion.order
    came = {submodel for reply in replies for submodel in reply.features}
    missing = tuple(submodel for submodel in order if submodel not in came)
    values = tuple(float(value) for value in probabilities)
    if not all(map(math.isfinite, values)):
        raise DeviceError("the fusion gives numbers that are not finite", code="device.reply")
    return Answer(
        label=manifest.classes[int(np.argmax(probabilities))],
        probabilities=values,
        complete=not missing,
        answered=len(order) - len(missing),
        expected=len(order),
        missing=missing,
        weak_classes=weak_classes(manifest, missing),
        milliseconds=milliseconds,
        devices=tuple(replies),
    )
