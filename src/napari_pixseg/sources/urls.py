"""URLs: what may be shown of them, how links inside them are joined."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

# What may stand before another link: caches by their name, archives with what is in them.
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+|(zip|tar|libarchive|dir)://[^?#@\[\]]*", re.IGNORECASE)


_FURTHER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+::)*([A-Za-z][A-Za-z0-9+.-]+://|/)")


_SECRET = re.compile(r"key|token|sig|secret|pass|pwd|cred|auth|session|policy|jwt", re.IGNORECASE)


def path_of_url(url: str) -> str:
    """Return the local path that a ``file://`` URL means."""
    path = urlsplit(url).path
    if os.name != "nt":
        return unquote(path)
    # It brings the HTTP client along.
    from urllib.request import url2pathname

    return url2pathname(path)


def public_uri(url: str) -> str:
    """Return a URL without user and password, and without a query that holds a secret.

    Parameters
    ----------
    url : str
        Any URL.

    Returns
    -------
    str
        The URL that may go into a manifest, a log or an error message.
    """
    if len(links := _links(url)) > 1:
        return "::".join(public_uri(link) if "://" in link else link for link in links)
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    # In abfs://container@account the first part is no user.
    netloc = parts.netloc if parts.scheme.startswith(("abfs", "wasb")) and ":" not in user else host
    fields = parse_qsl(parts.query, keep_blank_values=True)
    query = "" if any(_SECRET.search(name) for name, _ in fields) else parts.query
    return _joined(parts._replace(netloc=netloc, query=query, fragment=""))


def _inside(link: str) -> str:
    """Return the path of a link, with the host if it has one; nothing of a bare scheme."""
    path = link if link.startswith("/") else link.partition("://")[2]
    return path.partition("?")[0]


def _joined(parts: SplitResult) -> str:
    """Put a URL together; without a host the two slashes would be left out."""
    text = urlunsplit(parts)
    bare = parts.scheme and not text.startswith(f"{parts.scheme}://")
    return text.replace(":", "://", 1) if bare else text


def _links(url: str) -> list[str]:
    """Cut a chain of fsspec; colons in an address, a password or a query are none of its."""
    links: list[str] = []
    rest = url
    while True:
        link, _, further = rest.partition("::")
        if not (_LINK.fullmatch(link) and _FURTHER.match(further)):
            return [*links, rest]
        links.append(link)
        rest = further
