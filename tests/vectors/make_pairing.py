"""Write `pairing.json` and `signature.json`: what every implementation must compute from the same bytes.

    python tests/vectors/make_pairing.py

Nothing in it is random; running it again changes nothing.
"""

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edvit_tf.bundle.signature import Rollback, key_id, sign_manifest, sign_rollback
from edvit_tf.rpc.edvit_pb2 import PairChallenge, PairOffer
from edvit_tf.rpc.pairing import Token, proof, read_code, stretch

HERE = Path(__file__).parent
DEVICE = hashlib.sha256(b"a device's public key").hexdigest()


def pairing() -> dict[str, object]:
    """Two transcripts, one by code and one by token."""
    token = Token("0123456789ab", bytes(range(16)), bytes(range(100, 132)))
    code = "7K2M-Q4ZD-9HXA"
    offer = PairOffer(
        protocol=1, nonce=bytes(32), authority=b"a certificate", bundle_key=bytes(range(32))
    ).SerializeToString()
    cases = []
    for secret, token_id in ((read_code(code), ""), (token.secret, token.id)):
        challenge = PairChallenge(
            protocol=1, nonce=b"\1" * 32, public_key=b"a public key", name="kitchen", token_id=token_id
        ).SerializeToString()
        key = stretch(secret, DEVICE)
        cases.append(
            {
                "secret": secret.hex(),
                "token_id": token_id,
                "offer": offer.hex(),
                "challenge": challenge.hex(),
                "key": key.hex(),
                "aggregator_proof": proof(key, "aggregator", offer, challenge).hex(),
                "device_proof": proof(key, "device", offer, challenge).hex(),
            }
        )
    return {
        "device_id": DEVICE,
        "code": {"typed": [code, "7k2m q4zd 9hxa", "7K2MQ4ZD9HXA"], "secret": read_code(code).hex()},
        "token": {
            "word": str(token),
            "id": token.id,
            "secret": token.secret.hex(),
            "fingerprint": token.fingerprint.hex(),
        },
        "transcripts": cases,
    }


def signature() -> dict[str, object]:
    """A manifest's signature and a rollback decision, by a key that is public and signs nothing else."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    manifest = (HERE / "bundle" / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    return {
        "public_key": key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
        "key_id": key_id(key.public_key()),
        "manifest_file": "bundle/manifest.json",
        "signature": sign_manifest(key, manifest).hex(),
        "rollback": sign_rollback(key, Rollback("golden", 7, digest)).hex(),
    }


if __name__ == "__main__":
    for name, made in (("pairing.json", pairing()), ("signature.json", signature())):
        (HERE / name).write_text(json.dumps(made, indent=2) + "\n")
