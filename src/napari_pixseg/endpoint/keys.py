"""Keys: read from a file, found in a request, compared without telling how much is right."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from napari_pixseg.errors import KeyRefused, ParameterError


def load_keys(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a keys file: one key a line; empty lines, and lines that begin with #, are skipped.

    Parameters
    ----------
    path : path

    Returns
    -------
    tuple of str
        At least one.

    Raises
    ------
    ParameterError
        If the file cannot be read, holds no key, or one that no HTTP header can carry.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ParameterError(
            f"The keys file {os.fspath(path)} cannot be read: {reason}; it must be text with one "
            "key a line."
        ) from None
    stripped = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    keys = [(number, line) for number, line in stripped if line and not line.startswith("#")]
    for number, key in keys:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ParameterError(
                f"Line {number} of the keys file {os.fspath(path)} is no key: use printable ASCII "
                "characters without spaces."
            )
    if not keys:
        raise ParameterError(
            f"The keys file {os.fspath(path)} holds no key; write one a line, or leave --keys out."
        )
    return tuple(key for _, key in keys)


def offered_keys(headers: Mapping[str, str], parameters: Sequence[str] = ()) -> list[str]:
    """Return the keys a request offers: as parameter, or in one of two headers.

    Parameters
    ----------
    headers : mapping
        By names in lower case. The original API reads ``WWW-Authenticate``, which
        elsewhere belongs to responses; ``Authorization: Bearer`` is what clients expect.
    parameters : sequence of str
        Values of the parameter ``key``.
    """
    offered = list(parameters)
    for name in ("www-authenticate", "authorization"):
        value = headers.get(name, "").strip()
        scheme, _, rest = value.partition(" ")
        if scheme.lower() == "bearer":
            offered.append(rest.strip())
        elif value and name == "www-authenticate":
            offered.append(value)
    return offered


def check_keys(offered: Iterable[str], keys: Sequence[str]) -> None:
    """Refuse a request that offers none of the keys.

    Raises
    ------
    KeyRefused
    """
    offered = list(offered)
    if not offered:
        raise KeyRefused(
            "A key is needed: give it as key, or in the header Authorization: Bearer or "
            "WWW-Authenticate."
        )
    # Digests are of one length, and all pairs are looked at: the time says nothing.
    pairs = [(_digest(one), _digest(key)) for one in offered for key in keys]
    matches = [hmac.compare_digest(one, key) for one, key in pairs]
    if not any(matches):
        raise KeyRefused("The key is not known here; check it, or ask who runs this server.")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
