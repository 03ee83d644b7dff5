"""The server's TLS: its certificate and key, and what may be wrong with them."""

from __future__ import annotations

import ssl
from typing import NoReturn

from flowcoro.errors import ConfigError

__all__ = ["server_context"]


def server_context(certfile: str, keyfile: str) -> ssl.SSLContext | None:
    """Load a certificate chain and its key.

    Args:
        certfile: the chain, PEM; empty for no TLS.
        keyfile: the private key, PEM; empty where the chain's file has it.

    Returns:
        A context for a server; None without TLS.

    Raises:
        ConfigError: a file is missing, is none, fits not the other one, or asks for a password.
    """
    if not certfile:
        if keyfile:
            raise ConfigError(["http.keyfile: a key without a certificate; set http.certfile too"])
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for key, path in (("certfile", certfile), ("keyfile", keyfile or certfile)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ConfigError([f"http.{key}: {path}: {error.strerror}"]) from error
    try:
        context.load_cert_chain(certfile, keyfile or None, _no_password)
    except (OSError, ValueError) as error:
        files = f"{certfile} and {keyfile}" if keyfile else f"{certfile} (without http.keyfile)"
        reason = getattr(error, "reason", "") or str(error)
        raise ConfigError([f"http.certfile: {files}: no certificate with its key: {reason}"]) from (
            error
        )
    return context


def _no_password() -> NoReturn:
    raise ValueError("the key is encrypted, and nobody is asked for its password here")
