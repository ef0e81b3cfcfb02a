"""Controls access to the server: reads and compares keys, and refuses foreign web pages."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from napari_pixseg.endpoint.settings import is_loopback
from napari_pixseg.errors import KeyRefused, ParameterError

_log = logging.getLogger("napari_pixseg.endpoint")


def load_keys(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a keys file: one key per line; empty lines and lines that start with # are skipped.

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
        If the file cannot be read, holds no key, or holds one that no HTTP header can carry.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ParameterError(
            f"The keys file {os.fspath(path)} cannot be read: {reason}; it must be text with one "
            "key per line."
        ) from None
    stripped = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    keys = [(number, line) for number, line in stripped if line and not line.startswith("#")]
    for number, key in keys:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ParameterError(
                f"Line {number} of the keys file {os.fspath(path)} is not a valid key: use "
                "printable ASCII characters without spaces."
            )
    if not keys:
        raise ParameterError(
            f"The keys file {os.fspath(path)} holds no key; write one per line, or leave out "
            "--keys."
        )
    return tuple(key for _, key in keys)


class KeyRing:
    """The keys that open a server, which may be read again while it runs.

    Parameters
    ----------
    keys : sequence of str
        If there are none, every request is accepted.
    path : path
        The file of the keys; empty if they cannot be read again.
    """

    def __init__(self, keys: Sequence[str], path: str | os.PathLike[str] = "") -> None:
        self._keys = tuple(keys)
        self._path = path

    @property
    def is_empty(self) -> bool:
        """Whether the server asks for no key."""
        return not self._keys

    def reload(self) -> bool:
        """Read the file again; if it is unusable, keep the present keys."""
        if not self._path:
            return False
        try:
            self._keys = load_keys(self._path)
        except ParameterError as error:
            _log.error("%s The keys stay as they were.", error)
            return False
        _log.info("The keys were read again: %s", len(self._keys))
        return True

    def check(self, offered: Iterable[str]) -> bytes:
        """Refuse a request that offers none of the keys, if there are any.

        Returns
        -------
        bytes
            A digest that distinguishes holders of keys; empty without keys.

        Raises
        ------
        KeyRefused
        """
        return check_keys(offered, self._keys) if self._keys else b""


def offered_keys(headers: Mapping[str, str], parameters: Sequence[str] = ()) -> list[str]:
    """Return the keys that a request offers, as a parameter or in one of two headers.

    Parameters
    ----------
    headers : mapping
        Header names in lower case. The original API reads ``WWW-Authenticate``, which is
        otherwise a response header; clients usually send ``Authorization: Bearer``.
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


def check_keys(offered: Iterable[str], keys: Sequence[str]) -> bytes:
    """Refuse a request that offers none of the keys, and return a digest of the one it offers.

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
    # All digests have the same length and every pair is compared, so the time reveals nothing.
    pairs = [(_digest_key(one), _digest_key(key)) for one in offered for key in keys]
    matches = [key for one, key in pairs if hmac.compare_digest(one, key)]
    if not matches:
        raise KeyRefused("The key is not known here; check it, or ask whoever runs this server.")
    return matches[0]


def _digest_key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def refuse_foreign_pages(headers: Mapping[str, str], welcome: Sequence[str] = ()) -> None:
    """Refuse web pages that use this machine's browser to reach a server without keys.

    A page can post to a loopback address, which the header Origin reveals. It can have its own name
    point to a loopback address, which Host reveals. And it can show such an address as a picture or
    a link, which Sec-Fetch-Site reveals.

    Parameters
    ----------
    headers : mapping
        Of the request; header names in lower case.
    welcome : sequence of str
        Origins of pages that may call.

    Raises
    ------
    KeyRefused
    """
    origin = headers.get("origin")
    if origin is not None and origin in welcome:
        origin = None
    elif headers.get("sec-fetch-site", "").strip().lower() == "cross-site":
        raise _refused_page()
    claimed = [f"//{headers.get('host', '')}", *([] if origin is None else [origin])]
    # One foreign address among them is enough to refuse.
    for address in claimed:
        try:
            host = urlsplit(address).hostname or ""
        except ValueError:
            host = ""
        if not is_loopback(host):
            raise _refused_page()


def _refused_page() -> KeyRefused:
    return KeyRefused(
        "This server has no keys, so it answers only programs and pages of its own machine that "
        "call it at a loopback address; ask whoever runs it for one that has keys."
    )
