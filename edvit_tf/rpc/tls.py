"""Mutual TLS as gRPC takes it: what each side shows, and whom it believes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc


@dataclass(frozen=True, slots=True)
class Credentials:
    """One side of a connection, all of it PEM: its key, its certificate, and the authority it believes."""

    key: bytes
    certificate: bytes
    authority: bytes


def channel_credentials(mine: Credentials) -> Any:
    """What an aggregator calls with."""
    return grpc.ssl_channel_credentials(mine.authority, mine.key, mine.certificate)


def server_credentials(current: Callable[[], Credentials]) -> Any:
    """What a device listens with; `current` is asked at each handshake, so that a renewal drops nothing."""
    shown = current()

    def changed() -> Any:
        # gRPC replaces its state at each answer but None, and other handshakes may be using it: a flood of
        # connections would end the process (grpc issue 22489).
        nonlocal shown
        mine = current()
        if mine == shown:
            return None
        shown = mine
        return _configuration(mine)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown), changed, require_client_authentication=True
    )


def _configuration(mine: Credentials) -> Any:
    return grpc.ssl_server_certificate_configuration([(mine.key, mine.certificate)], mine.authority)
