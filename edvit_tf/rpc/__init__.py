"""The protocol between aggregator and devices, and the links that speak it."""

import os

# gRPC reads these when it is imported first.
# We start children only through subprocess; gRPC's fork handlers would do nothing but complain about it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# What it would log, we raise.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Only TLS 1.2 takes its ciphers from here, and this one needs another kind of certificate than ours: so it is
# 1.3 or nothing. gRPC for Python has no setting for the version (grpc issue 37305).
os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "AES128-GCM-SHA256")
