"""Every error a user can meet, in one tree.

Each message is one sentence that says what is wrong and what to do. Errors of other libraries are translated
where they enter; nothing above that place catches them again.

    EdvitError
    ├── UsageError          a bad argument or configuration (exit status 2)
    ├── MissingPackage      an extra that is not installed
    ├── DataError           a data set that is missing, broken or too small
    ├── TrainingError       a training that went wrong
    ├── ModelError          a checkpoint, a Keras model or a flatbuffer made from one
    ├── BundleError         a bundle that is incomplete, changed or of an unknown schema
    ├── TrustError          a key, certificate, code or signature that is wrong
    ├── PlanError           sub-models that fit on no device
    ├── DeviceError         a device that refuses or fails
    │   └── ProtocolError   a device that speaks another protocol
    ├── BusyError           an aggregator that has too much to do
    ├── PhoneError          a phone, or the program that reaches it, that is not there or refuses
    └── LinkError           a device that cannot be reached
        └── DeadlineError   an answer that did not come in time
"""


class EdvitError(Exception):
    """A failure with a sentence for people and a code for programs.

    `code` is the class's own unless a more exact one is given, for example `bundle.hash`.
    """

    code = "error"
    exit_status = 1

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class UsageError(EdvitError):
    """A bad argument or configuration."""

    code = "usage"
    exit_status = 2


class MissingPackage(EdvitError):
    """A package that only an extra installs."""

    code = "missing_package"


class DataError(EdvitError):
    """A data set that is missing, broken or too small."""

    code = "data"


class TrainingError(EdvitError):
    """A training that went wrong."""

    code = "training"


class ModelError(EdvitError):
    """A checkpoint, a Keras model, or a flatbuffer made from one."""

    code = "model"


class BundleError(EdvitError):
    """A bundle that is incomplete, changed, or of a schema this version does not know."""

    code = "bundle"


class TrustError(EdvitError):
    """A key, certificate, pairing code or signature that is missing, wrong or expired."""

    code = "trust"


class PlanError(EdvitError):
    """Sub-models that fit on no device."""

    code = "plan"


class DeviceError(EdvitError):
    """A device that refuses or fails."""

    code = "device"


class ProtocolError(DeviceError):
    """A device that speaks a protocol this version does not."""

    code = "protocol"


class BusyError(EdvitError):
    """An aggregator that has too much to do at the moment, or is about to stop."""

    code = "busy"


class PhoneError(EdvitError):
    """A phone, or the program that reaches it, that is not there or refuses."""

    code = "phone"


class LinkError(EdvitError):
    """A device that cannot be reached."""

    code = "link"


class DeadlineError(LinkError):
    """An answer that did not come in time."""

    code = "deadline"
