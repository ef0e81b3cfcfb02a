"""Where an input is: a local path or a URL, how it is opened, and what may be told of it."""

from __future__ import annotations

import os
import re
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from napari_pixseg.errors import InputNotFound, NotAnImage
from napari_pixseg.sources.file_state import FilesState
from napari_pixseg.sources.urls import _inside, _joined, _links, path_of_url, public_uri

# Of fsspec's chains, such as simplecache::https://host/a.tif, each part is one.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://")


# s3fs reads 50 MB at a time unless told; metadata and tiles are small.
_BLOCK = 1 << 20


_SPOOL = 64 << 20


@dataclass(frozen=True)
class Location:
    """A local path or a URL.

    Attributes
    ----------
    address : str
        Absolute path, or the URL as given; a URL may hold secrets and is never shown.
    uri : str
        The same as an absolute URI without user, password and signed query.
    remote : bool
        Whether ``address`` is a URL.
    """

    address: str = field(repr=False)
    uri: str
    remote: bool = False

    @property
    def name(self) -> str:
        """Last part of the path, as people call the file."""
        links = _links(self.uri)
        # Of an archive's top it is the archive's.
        paths = [urlsplit(self.uri).path] if len(links) == 1 else map(_inside, links)
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return unquote(next(filter(None, names), "")) or self.uri

    @property
    def shown(self) -> str:
        """The location as an error message may name it."""
        return self.uri if self.remote else self.address

    @property
    def parent(self) -> Location:
        """The directory above."""
        if not self.remote:
            return locate(os.path.dirname(self.address))
        links = _links(self.address)
        if len(links) > 1:
            return self._above(links)
        parts = urlsplit(self.address)
        path = parts.path.rstrip("/").rpartition("/")[0]
        return locate(_joined(parts._replace(path=path)))

    def _above(self, links: list[str]) -> Location:
        # The first link that is more than a scheme has the directories.
        at = next(i for i, link in enumerate(links) if "://" in link or link.startswith("/"))
        inside = _inside(links[at])
        if not inside.strip("/"):
            return self
        before = links[at].partition("?")[0].removesuffix(inside)
        above = before + inside.rstrip("/").rpartition("/")[0]
        text = "::".join([*links[:at], above, *links[at + 1 :]])
        return Location(text, public_uri(text), remote=True)

    def identity(self) -> dict[str, Any]:
        """Return what tells this file from a later one at the same place."""
        if not self.remote:
            status = os.stat(self.address)
            return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        try:
            filesystem, path = self.filesystem()
            info = filesystem.info(path)
        except Exception as error:  # noqa: BLE001 - every protocol has its own
            raise self.unreachable(error) from None
        return _identity_of(info)

    @property
    def state(self) -> FilesState | None:
        """What tells whether the file was written since; None for URLs."""
        return None if self.remote else FilesState(self.address)

    def open(self) -> IO[bytes]:
        """Open the file for reading at any position."""
        if not self.remote:
            return open(self.address, "rb")
        try:
            return self._open_remote()
        except Exception as error:  # noqa: BLE001 - every protocol has its own
            raise self.unreachable(error) from None

    def head(self, size: int = 512) -> bytes | None:
        """Return the first bytes, or None where there is no file.

        Raises
        ------
        InputNotFound
            The server cannot be reached or asks for other credentials.
        """
        try:
            if not self.remote:
                with open(self.address, "rb") as file:
                    return file.read(size)
            filesystem, path = self.filesystem()
            with filesystem.open(path, "rb", block_size=_BLOCK) as file:
                return bytes(file.read(size))
        except (FileNotFoundError, IsADirectoryError):
            return None
        except Exception as error:  # noqa: BLE001 - every protocol has its own
            raise self.unreachable(error) from None

    def filesystem(self) -> tuple[Any, str]:
        """Return the fsspec file system of a URL and the path in it."""
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(self.address)
        return filesystem, path

    def unreachable(self, error: Exception) -> Exception:
        """Return the error for the caller in place of one that may quote secrets."""
        if isinstance(error, ImportError):
            is_s3 = self.uri.startswith("s3:")
            missing = "s3fs; install napari-pixseg[s3]" if is_s3 else str(error).rstrip(".")
            return InputNotFound(f"{self.shown} needs a package that is missing: {missing}.")
        if not self.remote:
            if isinstance(error, PermissionError):
                return InputNotFound(
                    f"{self.shown} may not be read by this user; see to its permissions."
                )
            reason = error.strerror if isinstance(error, OSError) else None
            return NotAnImage(f"{self.shown} cannot be read: {reason or error}.")
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
        filesystem, path = self.filesystem()
        file: IO[bytes] = filesystem.open(path, "rb", block_size=_BLOCK)
        try:
            # Some servers send the whole file whatever range is asked for: only a read shows it.
            file.seek(-1, os.SEEK_END)
            file.read(1)
            file.seek(0)
        except (ValueError, OSError, TypeError):
            file.close()
            return _download(filesystem, path)
        # Of an archive it is closed with its file system.
        weakref.finalize(file, _let_go, filesystem)
        return file


def locate(path: str | os.PathLike[str]) -> Location:
    """Return the location a path or URL names, made absolute.

    Parameters
    ----------
    path : str or path-like
        ``file://`` URLs become local paths; ``~`` is the user's home.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise NotAnImage(f"A path must be text, but {type(text).__name__} was given.")
    if text.lower().startswith("file:/"):
        text = path_of_url(text)
    if found := _URL.match(text):
        # Schemes are written in any case, but known in one.
        text = found.group().lower() + text[found.end() :]
        return Location(text, public_uri(text), remote=True)
    if not text or "\0" in text:
        raise InputNotFound(f"{text!r} is no path: give the path or URL of an image.")
    absolute = os.path.abspath(os.path.expanduser(text))
    return Location(absolute, Path(absolute).as_uri())


def _identity_of(info: dict[str, Any]) -> dict[str, Any]:
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


def _let_go(_filesystem: object) -> None:
    """Do nothing; what was kept for this call until now may go."""


def _download(filesystem: Any, path: str) -> IO[bytes]:
    import shutil
    import tempfile

    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
    with suppress(AttributeError), filesystem.open(path, "rb", block_size=0) as stream:
        shutil.copyfileobj(stream, spool, _BLOCK)
    spool.seek(0)
    return spool
