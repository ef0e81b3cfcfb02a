"""The location of an input, a local path or a URL: opens it, and hides its secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeVar, cast
from urllib.parse import unquote, urlsplit

from napari_pixseg.errors import InputNotFound, NotAnImage, PixsegError, Unavailable
from napari_pixseg.sources.file_fingerprint import FileFingerprint
from napari_pixseg.sources.network_faults import (
    denied_input,
    is_silent,
    is_unconnected,
    out_of_files,
    read_again,
)
from napari_pixseg.sources.read_options import DEFAULT_RETRIES, SECONDS_TO_ANSWER
from napari_pixseg.sources.retrying_file import RetryingFile
from napari_pixseg.sources.urls import (
    join_url,
    path_of_link,
    path_of_url,
    public_uri,
    split_links,
    with_absolute_path,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

AnswerT = TypeVar("AnswerT")


# JSON has these values, and they can be hashed.
Identity: TypeAlias = dict[str, "str | int"]


# s3fs reads 50 MB at a time by default.
_BLOCK = 1 << 20


# fsspec's copies of files, which say only that a file is missing.
_CACHES = ("simplecache", "filecache")

# Also the chained URLs of fsspec, such as simplecache::https://host/a.tif.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Location:
    """A local path or a URL.

    Attributes
    ----------
    address : str
        Absolute path, or the URL as given; a URL may hold secrets and is never shown.
    uri : str
        The same as an absolute URI without user, password and signed query.
    is_url : bool
        Whether ``address`` is a URL.
    retries : int
        How often a read that fails because of the network is repeated.
    """

    address: str = field(repr=False)
    uri: str
    is_url: bool = False
    retries: int = DEFAULT_RETRIES

    @property
    def local_path(self) -> str | None:
        """Path that a library may open or map; None if it must use :meth:`open`."""
        return None if self.is_url else self.address

    @property
    def is_confidential(self) -> bool:
        """Whether errors of libraries must not be quoted: they may contain a URL's secrets."""
        return self.is_url

    @property
    def name(self) -> str:
        """Last part of the path: the file's name for people."""
        links = split_links(self.uri)
        # The top folder of an archive has the archive's name.
        paths = [urlsplit(self.uri).path] if len(links) == 1 else map(path_of_link, links)
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return unquote(next(filter(None, names), "")) or self.uri

    @property
    def shown(self) -> str:
        """The location as an error message may name it."""
        return self.uri if self.is_url else self.address

    def describe_cause(self, error: Exception) -> str:
        """Return what a message may quote of a library's error: its text, or only its type."""
        return type(error).__name__ if self.is_confidential else f"{error}".rstrip(".")

    @property
    def parent(self) -> Location:
        """The directory above."""
        return replace(self._parent(), retries=self.retries)

    def _parent(self) -> Location:
        if not self.is_url:
            return locate(os.path.dirname(self.address))
        links = split_links(self.address)
        if len(links) > 1:
            return self._parent_in_chain(links)
        parts = urlsplit(self.address)
        path = parts.path.rstrip("/").rpartition("/")[0]
        return locate(join_url(parts._replace(path=path)))

    def _parent_in_chain(self, links: list[str]) -> Location:
        # The directories are in the first link that consists of more than a scheme.
        at = next(i for i, link in enumerate(links) if "://" in link or link.startswith("/"))
        inside = path_of_link(links[at])
        if not inside.strip("/"):
            return self
        before = links[at].partition("?")[0].removesuffix(inside)
        shortened = before + inside.rstrip("/").rpartition("/")[0]
        text = "::".join([*links[:at], shortened, *links[at + 1 :]])
        return Location(text, public_uri(text), is_url=True)

    def identity(self) -> Identity:
        """Return values that differ for a later version of the file at the same place."""
        if not self.is_url:
            status = os.stat(self.address)
            return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        try:
            filesystem, path = self.filesystem()
            info = self.ask(lambda: filesystem.info(path))
        except Exception as error:  # noqa: BLE001 - every protocol has its own
            raise self.unreachable(error) from None
        return _identity_of(info)

    @property
    def fingerprint(self) -> FileFingerprint | None:
        """Callable that returns a fingerprint of the file; None for URLs."""
        return None if self.local_path is None else FileFingerprint(self.local_path)

    def open(self) -> IO[bytes]:
        """Open the file for reading at any position."""
        if not self.is_url:
            return open(self.address, "rb")
        try:
            # Opening sends requests, too, and they may fail.
            file = self.ask(lambda: RetryingFile(self._open_remote, self.retries, self.shown))
        except Exception as error:  # noqa: BLE001 - every protocol has its own
            raise self.unreachable(error) from None
        return cast("IO[bytes]", file)

    def ask(self, question: Callable[[], AnswerT]) -> AnswerT:
        """Send requests to the server, and repeat them if the network fails.

        Raises
        ------
        Unavailable
            If the network failed in all attempts. If no server is reached at all, or it never
            answers, there is only one attempt, because the address is most likely wrong; its error
            is raised unchanged.
        """
        return read_again(question, self.retries, self.shown, _is_hopeless)

    def head(self, size: int = 512) -> bytes | None:
        """Return the first bytes, or None where there is no file.

        Raises
        ------
        InputNotFound
            The server cannot be reached or asks for other credentials.
        """
        try:
            if not self.is_url:
                with open(self.address, "rb") as file:
                    return file.read(size)
            filesystem, path = self.filesystem()
            return self.ask(lambda: _first_bytes(filesystem, path, size))
        except (FileNotFoundError, IsADirectoryError) as error:
            if is_silent(error):
                raise self.unreachable(error) from None
            self._refuse_silence_behind_cache()
            return None
        except Exception as error:  # noqa: BLE001 - every protocol has its own
            raise self.unreachable(error) from None

    def filesystem(self) -> tuple[AbstractFileSystem, str]:
        """Return the fsspec file system of a URL and the path in it."""
        # Local files never need fsspec.
        from napari_pixseg.sources.remote_filesystem import open_filesystem

        return open_filesystem(self.address)

    def _refuse_silence_behind_cache(self) -> None:
        """Raise Unavailable where a cache says that nothing is there, and its server is silent."""
        if not self.is_url:
            return
        try:
            filesystem, path = self.filesystem()
        except OSError:
            # An archive that is not there is no cache.
            return
        if filesystem.protocol not in _CACHES:
            return
        try:
            _first_bytes(filesystem.fs, path, 1)
        except Exception as error:  # noqa: BLE001 - every protocol has its own
            if is_silent(error):
                raise self.unreachable(error) from None

    def unreachable(self, error: Exception) -> Exception:
        """Return an error that may be shown, in place of one that may contain secrets."""
        if isinstance(error, PixsegError):
            return error
        if (limit := out_of_files(error)) is not None:
            return limit
        if isinstance(error, ImportError):
            is_s3 = self.uri.startswith("s3:")
            missing = "s3fs; install napari-pixseg[s3]" if is_s3 else str(error).rstrip(".")
            return InputNotFound(f"{self.shown} needs a package that is missing: {missing}.")
        if not self.is_url:
            if isinstance(error, PermissionError):
                return denied_input(self.shown)
            reason = error.strerror if isinstance(error, OSError) else None
            return NotAnImage(f"{self.shown} cannot be read: {reason or error}.")
        if is_silent(error):
            return Unavailable(
                f"{self.shown} does not answer within {SECONDS_TO_ANSWER:.0f} s; check the address "
                "and the server, and run again."
            )
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            return InputNotFound(
                f"{self.shown} cannot be opened: fsspec knows no protocol of this name; "
                "check the address."
            )
        return InputNotFound(
            f"{self.shown} cannot be opened ({type(error).__name__}): "
            "check the address, the connection and the credentials."
        )

    def _open_remote(self) -> IO[bytes]:
        # Local files do not need the modules that servers may need.
        from napari_pixseg.sources.remote_file import open_remote

        return open_remote(*self.filesystem())


def _is_hopeless(error: BaseException) -> bool:
    return is_unconnected(error) or is_silent(error)


def locate(path: str | os.PathLike[str], retries: int = DEFAULT_RETRIES) -> Location:
    """Return the absolute location of a path or URL.

    Parameters
    ----------
    path : str or path-like
        ``file://`` URLs become local paths; ``~`` is the user's home.
    retries : int
        How often a read that fails because of the network is repeated.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise NotAnImage(f"A path must be text, but {type(text).__name__} was given.")
    if text.lower().startswith("file:/"):
        text = path_of_url(text)
    if found := _URL.match(text):
        # Schemes may be written in any case, but fsspec knows them in lower case.
        text = with_absolute_path(found.group().lower() + text[found.end() :])
        try:
            return Location(text, public_uri(text), is_url=True, retries=retries)
        except ValueError as error:
            # The URL itself may hold secrets.
            raise InputNotFound(
                f"The URL of the input cannot be read ({error}); check its address."
            ) from None
    if not text or "\0" in text:
        raise InputNotFound(f"{text!r} is not a path: give the path or URL of an image.")
    try:
        absolute = os.path.abspath(os.path.expanduser(text))
    except FileNotFoundError:
        raise InputNotFound(
            f"{text} leads nowhere, because the current folder was removed; change to another "
            "folder, or give an absolute path."
        ) from None
    return Location(absolute, Path(absolute).as_uri())


def _identity_of(info: dict[str, object]) -> Identity:
    # Each file system of fsspec spells these keys differently.
    known = {key.lower().replace("-", "").replace("_", ""): value for key, value in info.items()}
    identity = {
        "size": known.get("size"),
        "etag": known.get("etag"),
        "last_modified": known.get("lastmodified") or known.get("mtime") or known.get("created"),
    }
    return {
        key: value if isinstance(value, int) else str(value)
        for key, value in identity.items()
        if value is not None
    }


def _first_bytes(filesystem: AbstractFileSystem, path: str, size: int) -> bytes:
    with filesystem.open(path, "rb", block_size=_BLOCK) as file:
        return bytes(file.read(size))
