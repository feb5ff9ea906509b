"""What a device admits: its own fleet's bundles, whole, in time, and never an older one by itself."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edvit_tf.bundle.reader import Bundle, open_bundle
from edvit_tf.bundle.signature import Rollback, admit, key_id, read_rollback, sign_manifest, sign_rollback
from edvit_tf.errors import TrustError
from tests.conftest import GOLDEN

KEY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(GOLDEN)


def refusal(bundle: Bundle, signature: bytes, **rest: object) -> str:
    arguments = {"newest": 0, **rest}
    with pytest.raises(TrustError) as caught:
        admit(KEY.public_key(), bundle.manifest, bundle.manifest_bytes, signature, **arguments)  # type: ignore[arg-type]
    return caught.value.code


def test_a_signed_manifest_is_admitted(bundle: Bundle) -> None:
    signature = sign_manifest(KEY, bundle.manifest_bytes)
    assert len(signature) == 64
    version = bundle.manifest.version
    for newest in (0, version):
        admit(KEY.public_key(), bundle.manifest, bundle.manifest_bytes, signature, newest=newest)


def test_no_signature_and_a_strangers_are_refused(bundle: Bundle) -> None:
    assert refusal(bundle, b"") == "trust.unsigned"
    assert refusal(bundle, b"\0" * 64) == "trust.signature"
    assert refusal(bundle, sign_manifest(STRANGER, bundle.manifest_bytes)) == "trust.signature"
    assert key_id(KEY.public_key()) != key_id(STRANGER.public_key())


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_changed_bit_is_refused(bundle: Bundle, place: int, bit: int) -> None:
    data = bytearray(bundle.manifest_bytes)
    data[place % len(data)] ^= 1 << bit
    signature = sign_manifest(KEY, bundle.manifest_bytes)
    with pytest.raises(TrustError) as caught:
        admit(KEY.public_key(), bundle.manifest, bytes(data), signature, newest=0)
    assert caught.value.code == "trust.signature"


@pytest.mark.fault
def test_an_older_version_needs_the_owners_decision(bundle: Bundle) -> None:
    signature = sign_manifest(KEY, bundle.manifest_bytes)
    newest = bundle.manifest.version + 2
    assert refusal(bundle, signature, newest=newest) == "trust.older"
    right = Rollback(bundle.manifest.name, newest, hashlib.sha256(bundle.manifest_bytes).hexdigest())
    admit(
        KEY.public_key(), bundle.manifest, bundle.manifest_bytes, signature,
        newest=newest, rollback=sign_rollback(KEY, right),
    )  # fmt: skip
    wrong = [
        sign_rollback(STRANGER, right),
        sign_rollback(KEY, replace(right, bundle="another")),
        sign_rollback(KEY, replace(right, manifest="0" * 64)),
        sign_rollback(KEY, replace(right, newest=newest - 1)),
        signature + bundle.manifest_bytes[:4000],
        b"x",
        b"x" * 10_000,
    ]
    assert {refusal(bundle, signature, newest=newest, rollback=data) for data in wrong} == {"trust.rollback"}


def test_a_manifests_signature_is_no_decision_and_the_reverse(bundle: Bundle) -> None:
    document = b'{"bundle": "x", "newest": 9, "manifest": "0"}'
    with pytest.raises(TrustError):
        read_rollback(KEY.public_key(), sign_manifest(KEY, document) + document)
    decision = sign_rollback(KEY, Rollback("x", 1, "0"))
    assert refusal(bundle, decision[:64]) == "trust.signature"


@pytest.mark.fault
def test_an_expired_manifest_is_refused_and_the_clock_is_named(bundle: Bundle) -> None:
    ends = datetime(2030, 1, 1, tzinfo=UTC)
    manifest = replace(bundle.manifest, expires=f"{ends:%Y-%m-%dT%H:%M:%SZ}")
    data = bundle.manifest_bytes
    signature = sign_manifest(KEY, data)
    admit(KEY.public_key(), manifest, data, signature, newest=0, now=ends - timedelta(seconds=288))
    with pytest.raises(TrustError, match="clock") as caught:
        admit(KEY.public_key(), manifest, data, signature, newest=0, now=ends + timedelta(seconds=1))
    assert caught.value.code == "trust.expired"
