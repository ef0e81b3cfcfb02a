"""Shows URLs without secrets, and takes chained URLs such as ``zip://a::b`` apart."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, parse_qsl, unquote_to_bytes, urlsplit, urlunsplit

# Protocols of fsspec's file systems that lie in a file of another one.
ARCHIVES = ("zip", "tar", "libarchive")

# Allowed before "::" - the name of a cache, or an archive with the path inside it.
_OUTER_LINK = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+|(zip|tar|libarchive|dir)://[^?#@\[\]]*", re.IGNORECASE
)


# Required after "::" - further links, and then a URL or a path.
_INNER_LINKS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+::)*([A-Za-z][A-Za-z0-9+.-]+://|/)")


_SECRET = re.compile(r"key|token|sig|secret|pass|pwd|cred|auth|session|policy|jwt", re.IGNORECASE)


def path_of_url(url: str) -> str:
    """Return the local path of a ``file://`` URL."""
    path = urlsplit(url).path
    if os.name != "nt":
        # The inverse of Path.as_uri(): a name need be neither UTF-8 nor in the process's encoding.
        return os.fsdecode(unquote_to_bytes(path))
    # This module loads Python's HTTP client, which only Windows needs here.
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
    if len(links := split_links(url)) > 1:
        return "::".join(public_uri(link) if "://" in link else link for link in links)
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    # In abfs://container@account the part before "@" is a container, not a user.
    is_container = parts.scheme.startswith(("abfs", "wasb")) and ":" not in user
    netloc = parts.netloc if is_container else host
    fields = parse_qsl(parts.query, keep_blank_values=True)
    query = "" if any(_SECRET.search(name) for name, _ in fields) else parts.query
    return join_url(parts._replace(netloc=netloc, query=query, fragment=""))


def path_of_link(link: str) -> str:
    """Return the path of a link, after its host if it has one; "" for a scheme alone."""
    path = link if link.startswith("/") else link.partition("://")[2]
    return path.partition("?")[0]


def join_url(parts: SplitResult) -> str:
    """Put a URL together, keeping the two slashes that urllib drops where there is no host."""
    text = urlunsplit(parts)
    lost_slashes = parts.scheme and not text.startswith(f"{parts.scheme}://")
    return text.replace(":", "://", 1) if lost_slashes else text


def with_absolute_path(url: str) -> str:
    """Return a chained URL, such as zip://::a.zip, with the path at its end made absolute."""
    outer, _, path = url.rpartition("::")
    is_relative = bool(path) and "://" not in path and not os.path.isabs(path)
    if not (is_relative and _OUTER_LINK.fullmatch(outer.rpartition("::")[2])):
        return url
    return f"{outer}::{os.path.abspath(os.path.expanduser(path))}"


def split_links(url: str) -> list[str]:
    """Split a chained URL of fsspec at its "::", but not at colons in addresses or passwords."""
    links: list[str] = []
    rest = url
    while True:
        link, _, further = rest.partition("::")
        if not (_OUTER_LINK.fullmatch(link) and _INNER_LINKS.match(further)):
            return [*links, rest]
        links.append(link)
        rest = further
