from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ("protocol", "software")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("protocol", "id", "name", "software", "runtime", "accelerator", "accelerator_reason", "memory_bytes", "energy_joules", "joules_per_mac", "bundle", "bundle_version", "holdings", "generations", "targets", "instance", "codecs", "kind", "cores")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_REASON_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    JOULES_PER_MAC_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOLDINGS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    id: str
    name: str
    software: str
    runtime: str
    accelerator: str
    accelerator_reason: str
    memory_bytes: int
    energy_joules: float
    joules_per_mac: float
    bundle: str
    bundle_version: int
    holdings: _containers.RepeatedCompositeFieldContainer[Holding]
    generations: _containers.RepeatedCompositeFieldContainer[Generation]
    targets: _containers.RepeatedScalarFieldContainer[str]
    instance: bytes
    codecs: _containers.RepeatedScalarFieldContainer[str]
    kind: str
    cores: int
    def __init__(self, protocol: _Optional[int] = ..., id: _Optional[str] = ..., name: _Optional[str] = ..., software: _Optional[str] = ..., runtime: _Optional[str] = ..., accelerator: _Optional[str] = ..., accelerator_reason: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., energy_joules: _Optional[float] = ..., joules_per_mac: _Optional[float] = ..., bundle: _Optional[str] = ..., bundle_version: _Optional[int] = ..., holdings: _Optional[_Iterable[_Union[Holding, _Mapping]]] = ..., generations: _Optional[_Iterable[_Union[Generation, _Mapping]]] = ..., targets: _Optional[_Iterable[str]] = ..., instance: _Optional[bytes] = ..., codecs: _Optional[_Iterable[str]] = ..., kind: _Optional[str] = ..., cores: _Optional[int] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("bundle", "version", "manifest", "settled", "holdings")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    HOLDINGS_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    version: int
    manifest: bytes
    settled: bool
    holdings: _containers.RepeatedCompositeFieldContainer[Holding]
    def __init__(self, bundle: _Optional[str] = ..., version: _Optional[int] = ..., manifest: _Optional[bytes] = ..., settled: _Optional[bool] = ..., holdings: _Optional[_Iterable[_Union[Holding, _Mapping]]] = ...) -> None: ...

class Holding(_message.Message):
    __slots__ = ("submodel", "sha256", "format", "serving", "reason", "memory_bytes", "microseconds")
    SUBMODEL_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    submodel: str
    sha256: str
    format: str
    serving: bool
    reason: str
    memory_bytes: int
    microseconds: int
    def __init__(self, submodel: _Optional[str] = ..., sha256: _Optional[str] = ..., format: _Optional[str] = ..., serving: _Optional[bool] = ..., reason: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., microseconds: _Optional[int] = ...) -> None: ...

class InstallRequest(_message.Message):
    __slots__ = ("header", "chunk", "settle", "release")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    header: InstallHeader
    chunk: bytes
    settle: Settle
    release: Release
    def __init__(self, header: _Optional[_Union[InstallHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ..., settle: _Optional[_Union[Settle, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ...) -> None: ...

class InstallHeader(_message.Message):
    __slots__ = ("manifest", "submodel", "variant", "resumes", "replaces", "signature", "rollback")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SUBMODEL_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    RESUMES_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    submodel: str
    variant: str
    resumes: bool
    replaces: bool
    signature: bytes
    rollback: bytes
    def __init__(self, manifest: _Optional[bytes] = ..., submodel: _Optional[str] = ..., variant: _Optional[str] = ..., resumes: _Optional[bool] = ..., replaces: _Optional[bool] = ..., signature: _Optional[bytes] = ..., rollback: _Optional[bytes] = ...) -> None: ...

class Settle(_message.Message):
    __slots__ = ("manifest",)
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    def __init__(self, manifest: _Optional[bytes] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("manifest", "submodels")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SUBMODELS_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    submodels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, manifest: _Optional[bytes] = ..., submodels: _Optional[_Iterable[str]] = ...) -> None: ...

class InstallReply(_message.Message):
    __slots__ = ("step", "received_bytes", "reason", "code", "microseconds")
    class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STEP_UNSPECIFIED: _ClassVar[InstallReply.Step]
        RECEIVING: _ClassVar[InstallReply.Step]
        VERIFYING: _ClassVar[InstallReply.Step]
        SERVING: _ClassVar[InstallReply.Step]
        REFUSED: _ClassVar[InstallReply.Step]
        MEASURED: _ClassVar[InstallReply.Step]
    STEP_UNSPECIFIED: InstallReply.Step
    RECEIVING: InstallReply.Step
    VERIFYING: InstallReply.Step
    SERVING: InstallReply.Step
    REFUSED: InstallReply.Step
    MEASURED: InstallReply.Step
    STEP_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    step: InstallReply.Step
    received_bytes: int
    reason: str
    code: str
    microseconds: int
    def __init__(self, step: _Optional[_Union[InstallReply.Step, str]] = ..., received_bytes: _Optional[int] = ..., reason: _Optional[str] = ..., code: _Optional[str] = ..., microseconds: _Optional[int] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("request_id", "bundle", "bundle_version", "submodels", "picture", "manifest", "turn", "withdrawn")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SUBMODELS_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    bundle: str
    bundle_version: int
    submodels: _containers.RepeatedScalarFieldContainer[str]
    picture: Picture
    manifest: bytes
    turn: int
    withdrawn: bool
    def __init__(self, request_id: _Optional[str] = ..., bundle: _Optional[str] = ..., bundle_version: _Optional[int] = ..., submodels: _Optional[_Iterable[str]] = ..., picture: _Optional[_Union[Picture, _Mapping]] = ..., manifest: _Optional[bytes] = ..., turn: _Optional[int] = ..., withdrawn: _Optional[bool] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("codec", "height", "width", "channels", "data")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    codec: str
    height: int
    width: int
    channels: int
    data: bytes
    def __init__(self, codec: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., channels: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("request_id", "bundle_version", "outputs", "manifest", "turn", "refused", "code", "decode_microseconds")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DECODE_MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    bundle_version: int
    outputs: _containers.RepeatedCompositeFieldContainer[Output]
    manifest: bytes
    turn: int
    refused: str
    code: str
    decode_microseconds: int
    def __init__(self, request_id: _Optional[str] = ..., bundle_version: _Optional[int] = ..., outputs: _Optional[_Iterable[_Union[Output, _Mapping]]] = ..., manifest: _Optional[bytes] = ..., turn: _Optional[int] = ..., refused: _Optional[str] = ..., code: _Optional[str] = ..., decode_microseconds: _Optional[int] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("submodel", "feature", "logits", "microseconds")
    SUBMODEL_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    submodel: str
    feature: bytes
    logits: bytes
    microseconds: int
    def __init__(self, submodel: _Optional[str] = ..., feature: _Optional[bytes] = ..., logits: _Optional[bytes] = ..., microseconds: _Optional[int] = ...) -> None: ...

class CertificateRequest(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class CertificateReply(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class JournalRequest(_message.Message):
    __slots__ = ("last", "follow")
    LAST_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    last: int
    follow: bool
    def __init__(self, last: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class JournalLine(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("call", "method", "message", "last", "outcome", "cancelled", "taken")
    CALL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    call: int
    method: str
    message: bytes
    last: bool
    outcome: Outcome
    cancelled: bool
    taken: int
    def __init__(self, call: _Optional[int] = ..., method: _Optional[str] = ..., message: _Optional[bytes] = ..., last: _Optional[bool] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ..., cancelled: _Optional[bool] = ..., taken: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("status", "details", "code")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    status: str
    details: str
    code: str
    def __init__(self, status: _Optional[str] = ..., details: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("picture", "milliseconds")
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    picture: bytes
    milliseconds: int
    def __init__(self, picture: _Optional[bytes] = ..., milliseconds: _Optional[int] = ...) -> None: ...

class ClassifyReply(_message.Message):
    __slots__ = ("request_id", "bundle", "bundle_version", "label", "probabilities", "complete", "answered", "expected", "missing", "weak_classes", "milliseconds", "devices")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    WEAK_CLASSES_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    bundle: str
    bundle_version: int
    label: str
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    complete: bool
    answered: int
    expected: int
    missing: _containers.RepeatedScalarFieldContainer[str]
    weak_classes: _containers.RepeatedScalarFieldContainer[str]
    milliseconds: float
    devices: _containers.RepeatedCompositeFieldContainer[DevicePart]
    def __init__(self, request_id: _Optional[str] = ..., bundle: _Optional[str] = ..., bundle_version: _Optional[int] = ..., label: _Optional[str] = ..., probabilities: _Optional[_Iterable[float]] = ..., complete: _Optional[bool] = ..., answered: _Optional[int] = ..., expected: _Optional[int] = ..., missing: _Optional[_Iterable[str]] = ..., weak_classes: _Optional[_Iterable[str]] = ..., milliseconds: _Optional[float] = ..., devices: _Optional[_Iterable[_Union[DevicePart, _Mapping]]] = ...) -> None: ...

class DevicePart(_message.Message):
    __slots__ = ("device", "name", "submodels", "milliseconds", "interpreter_milliseconds", "error", "code", "codec", "sent_bytes", "received_bytes")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBMODELS_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    INTERPRETER_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    device: str
    name: str
    submodels: _containers.RepeatedScalarFieldContainer[str]
    milliseconds: float
    interpreter_milliseconds: float
    error: str
    code: str
    codec: str
    sent_bytes: int
    received_bytes: int
    def __init__(self, device: _Optional[str] = ..., name: _Optional[str] = ..., submodels: _Optional[_Iterable[str]] = ..., milliseconds: _Optional[float] = ..., interpreter_milliseconds: _Optional[float] = ..., error: _Optional[str] = ..., code: _Optional[str] = ..., codec: _Optional[str] = ..., sent_bytes: _Optional[int] = ..., received_bytes: _Optional[int] = ...) -> None: ...

class PairRequest(_message.Message):
    __slots__ = ("offer", "proof", "certificate")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    offer: bytes
    proof: bytes
    certificate: bytes
    def __init__(self, offer: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class PairReply(_message.Message):
    __slots__ = ("challenge", "proof", "done", "refused")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    challenge: bytes
    proof: bytes
    done: bool
    refused: str
    def __init__(self, challenge: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., done: _Optional[bool] = ..., refused: _Optional[str] = ...) -> None: ...

class PairOffer(_message.Message):
    __slots__ = ("protocol", "nonce", "authority", "bundle_key")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_KEY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    nonce: bytes
    authority: bytes
    bundle_key: bytes
    def __init__(self, protocol: _Optional[int] = ..., nonce: _Optional[bytes] = ..., authority: _Optional[bytes] = ..., bundle_key: _Optional[bytes] = ...) -> None: ...

class PairChallenge(_message.Message):
    __slots__ = ("protocol", "nonce", "public_key", "name", "token_id", "runtime", "kind", "memory_bytes", "cores")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    nonce: bytes
    public_key: bytes
    name: str
    token_id: str
    runtime: str
    kind: str
    memory_bytes: int
    cores: int
    def __init__(self, protocol: _Optional[int] = ..., nonce: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., name: _Optional[str] = ..., token_id: _Optional[str] = ..., runtime: _Optional[str] = ..., kind: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., cores: _Optional[int] = ...) -> None: ...
