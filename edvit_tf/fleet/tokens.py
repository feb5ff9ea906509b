"""Join tokens that the fleet's owner has handed out: how often each may still be used, and until when."""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from edvit_tf.errors import TrustError
from edvit_tf.fleet.keys import KEYS
from edvit_tf.rpc.certificates import utc_now
from edvit_tf.rpc.pairing import Token, new_token

TOKENS_FILE = "tokens.json"


@dataclass(frozen=True, slots=True)
class Issued:
    """One token: `secret` in hex, `uses` that are left, `expires` as an ISO time in UTC."""

    id: str
    secret: str
    uses: int
    expires: str

    def valid(self, now: datetime) -> bool:
        """Whether it can be used now."""
        return self.uses > 0 and now <= datetime.fromisoformat(self.expires)


class Tokens:
    """The tokens in a fleet's folder; every change is one locked, atomic step."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEYS / TOKENS_FILE

    def issue(
        self, fingerprint: bytes, *, uses: int = 1, life: timedelta, now: datetime | None = None
    ) -> Token:
        """Make a token for the authority with this fingerprint."""
        token = new_token(fingerprint)
        expires = ((now or utc_now()) + life).isoformat(timespec="seconds")
        with self._changing() as issued:
            issued[token.id] = Issued(token.id, token.secret.hex(), uses, expires)
        return token

    def all(self) -> list[Issued]:
        """Every token that is kept, by expiry."""
        return sorted(self._read().values(), key=lambda token: token.expires)

    def secret(self, token_id: str, *, now: datetime | None = None) -> bytes:
        """The secret (16 bytes) of a token that can be used.

        Raises:
            TrustError: `trust.token`: there is none of that id, or it has expired or is used up; or the id is
                empty, of a device that was given no token.
        """
        if not token_id:
            raise TrustError(
                "it shows a pairing code: adopt it with `edvit-tf fleet adopt`", code="trust.token"
            )
        found = self._read().get(token_id)
        if found is None or not found.valid(now or utc_now()):
            raise _unusable(token_id)
        return bytes.fromhex(found.secret)

    def use(self, token_id: str, *, now: datetime | None = None) -> None:
        """Take one use.

        Raises:
            TrustError: `trust.token`: none is left.
        """
        with self._changing() as issued:
            found = issued.get(token_id)
            if found is None or not found.valid(now or utc_now()):
                raise _unusable(token_id)
            issued[token_id] = replace(found, uses=found.uses - 1)

    def revoke(self, token_id: str) -> None:
        """Let nobody use it any more.

        Raises:
            TrustError: `trust.token`: there is none of that id.
        """
        with self._changing() as issued:
            if issued.pop(token_id, None) is None:
                raise _unusable(token_id)

    def _read(self) -> dict[str, Issued]:
        try:
            document = json.loads(self._path.read_bytes())
            return {key: Issued(**fields) for key, fields in document.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise TrustError(
                f"{self._path} cannot be read: delete it, and make new tokens", code="trust.token"
            ) from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Issued]]:
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            issued = self._read()
            yield issued
            temporary = self._path.with_name(f"{TOKENS_FILE}.{secrets.token_hex(4)}.part")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump({key: asdict(token) for key, token in issued.items()}, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path)
        finally:
            os.close(lock)


def _unusable(token_id: str) -> TrustError:
    return TrustError(
        f"the join token {token_id[:12]!r} is unknown, used up, expired or revoked: "
        "make one with `edvit-tf fleet token`",
        code="trust.token",
    )
