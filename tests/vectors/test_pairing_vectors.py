"""The transcripts that other languages read are what this code computes."""

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edvit_tf.bundle.signature import key_id, read_rollback, verify_manifest
from edvit_tf.rpc.pairing import proof, read_code, read_token, stretch

HERE = Path(__file__).parent


def test_pairing_transcripts() -> None:
    vectors = json.loads((HERE / "pairing.json").read_text())
    for typed in vectors["code"]["typed"]:
        assert read_code(typed).hex() == vectors["code"]["secret"]
    token, expected = read_token(vectors["token"]["word"]), vectors["token"]
    assert (token.id, token.secret.hex()) == (expected["id"], expected["secret"])
    assert token.fingerprint.hex() == expected["fingerprint"]
    assert len(vectors["transcripts"]) == 2
    for case in vectors["transcripts"]:
        key = stretch(bytes.fromhex(case["secret"]), vectors["device_id"])
        assert key.hex() == case["key"]
        offer, challenge = bytes.fromhex(case["offer"]), bytes.fromhex(case["challenge"])
        assert proof(key, "aggregator", offer, challenge).hex() == case["aggregator_proof"]
        assert proof(key, "device", offer, challenge).hex() == case["device_proof"]


def test_signatures() -> None:
    vectors = json.loads((HERE / "signature.json").read_text())
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vectors["public_key"]))
    assert key_id(key) == vectors["key_id"]
    manifest = (HERE / vectors["manifest_file"]).read_bytes()
    verify_manifest(key, manifest, bytes.fromhex(vectors["signature"]))
    assert read_rollback(key, bytes.fromhex(vectors["rollback"])).newest == 7
