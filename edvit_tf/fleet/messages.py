"""An answer as a message of the gRPC interface, and back."""

from edvit_tf.bundle.manifest import Manifest
from edvit_tf.errors import EdvitError
from edvit_tf.fleet.answer import Answer, DeviceReply
from edvit_tf.rpc.edvit_pb2 import ClassifyReply, DevicePart


def reply_of(answer: Answer, request_id: str, manifest: Manifest) -> ClassifyReply:
    """The message."""
    return ClassifyReply(
        request_id=request_id,
        bundle=manifest.name,
        bundle_version=manifest.version,
        label=answer.label,
        probabilities=answer.probabilities,
        complete=answer.complete,
        answered=answer.answered,
        expected=answer.expected,
        missing=answer.missing,
        weak_classes=answer.weak_classes,
        milliseconds=answer.milliseconds,
        devices=[
            DevicePart(
                device=part.device,
                name=part.name,
                submodels=part.submodels,
                milliseconds=part.milliseconds,
                interpreter_milliseconds=part.interpreter_milliseconds,
                codec=part.codec,
                sent_bytes=part.sent_bytes,
                received_bytes=part.received_bytes,
                error=part.error.message if part.error else "",
                code=part.error.code if part.error else "",
            )
            for part in answer.devices
        ],
    )


def answer_of(reply: ClassifyReply) -> Answer:
    """The answer that a message carries, without features."""
    return Answer(
        label=reply.label,
        probabilities=tuple(reply.probabilities),
        complete=reply.complete,
        answered=reply.answered,
        expected=reply.expected,
        missing=tuple(reply.missing),
        weak_classes=tuple(reply.weak_classes),
        milliseconds=reply.milliseconds,
        devices=tuple(
            DeviceReply(
                device=part.device,
                name=part.name,
                submodels=tuple(part.submodels),
                features={},
                milliseconds=part.milliseconds,
                interpreter_milliseconds=part.interpreter_milliseconds,
                sent_bytes=part.sent_bytes,
                received_bytes=part.received_bytes,
                codec=part.codec,
                error=EdvitError(part.error, code=part.code) if part.error else None,
            )
            for part in reply.devices
        ),
    )
