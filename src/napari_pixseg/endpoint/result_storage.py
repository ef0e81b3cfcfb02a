"""Results and stored images, on disk or in an object store, each with its manifest beside it."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from napari_pixseg.errors import InputNotFound, ParameterError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import OutputLocation

# Endings of stored images, and the content types with which they are served.
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
    ".tif": "image/tiff",
}
RESULT_NAME = re.compile(r"[0-9a-f]{32}\.(png|jpg|gif|bmp|webp|tif)")


class ResultStorage:
    """The place where results are kept.

    No request lists the folder, which may contain millions of results.

    Parameters
    ----------
    location : OutputLocation
        Folder, or URL of one.

    Attributes
    ----------
    location : OutputLocation
    """

    def __init__(self, location: OutputLocation) -> None:
        self.location = location
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()

    def prepare(self) -> None:
        """Make the folder, readable by its owner only: names are all that protects results.

        Raises
        ------
        ParameterError
            If nothing can be written there, as in a bucket that does not exist.
        """
        probe = self.location.child(f".pixseg-probe-{os.urandom(4).hex()}")
        try:
            if self.location.is_local:
                self.location.local_path.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.remove()
        except Exception as error:  # noqa: BLE001 - each kind of storage has errors of its own
            # Other errors may quote a URL with secrets.
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ParameterError(
                f"The storage {self.location.uri} cannot be written ({reason}); make it, and let "
                "this server write there, or give another --storage."
            ) from None

    def path_of(self, name: str) -> Path | None:
        """Return the file of a finished result; None for anything else."""
        if not RESULT_NAME.fullmatch(name) or not self.location.is_local:
            return None
        picture = self.location.local_path / name
        # The manifest is written last, so a picture without one is unfinished.
        finished = picture.with_name(f"{name}.json").is_file() and picture.is_file()
        return picture if finished else None

    @contextmanager
    def hold_result(self, name: str) -> Iterator[None]:
        """Protect a result from removal while it is read."""
        with self._lock:
            self._readers[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers[name] -= 1
                if not self._readers[name]:
                    del self._readers[name]

    def remove_result(self, path: Path) -> bool:
        """Remove a local result with its manifest, unless somebody reads it."""
        with self._lock:
            if self._readers[path.name]:
                return False
            # A result without its manifest is not served, so nobody begins to read it.
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            return True

    def link_of(self, name: str, base: str) -> str:
        """Return the address that the answer gives.

        Parameters
        ----------
        name : str
            File name of the result.
        base : str
            URL at which the client reaches this server.
        """
        if self.location.is_local:
            return f"{base.rstrip('/')}/results/{name}"
        return self.location.child(name).uri

    def name_of_link(self, link: str, bases: Sequence[str]) -> str | None:
        """Return the name of a result from a link of this very server.

        Nothing is fetched from such a link, so a client that forges the server's name gets no more
        than at /results/.

        Parameters
        ----------
        link : str
        bases : sequence of str
            URLs at which clients reach this server.
        """
        name = link.rpartition("/")[2]
        if not RESULT_NAME.fullmatch(name):
            return None
        if not self.location.is_local:
            return name if link == self.location.child(name).uri else None
        return name if any(_is_same_url(link, self.link_of(name, base)) for base in bases) else None

    def copy_result(self, name: str, into: Path) -> None:
        """Copy a result to a local file.

        Raises
        ------
        InputNotFound
            If there is no such result, or not any more.
        """
        missing = InputNotFound("There is no such result here; its link may have expired.")
        if not self.location.is_local:
            if not self.location.child(name).sidecar().is_file():
                raise missing
            with self.location.child(name).open() as source, into.open("wb") as file:
                shutil.copyfileobj(source, file)
            return
        with self.hold_result(name):
            path = self.path_of(name)
            if path is None:
                raise missing
            shutil.copyfile(path, into)

    def keep_file(self, file: Path, name: str, manifest: Manifest) -> None:
        """Move a picture here and write its manifest ``<name>.json``; both, or nothing.

        Parameters
        ----------
        file : Path
            Finished, and elsewhere on this machine.
        name : str
            Its name here.
        manifest : Manifest
        """
        picture = self.location.child(name)
        with picture.new_file() as partial:
            shutil.move(file, partial)
        try:
            picture.sidecar().write_bytes(manifest.to_json().encode())
        except BaseException:
            picture.remove()
            raise


def _is_same_url(one: str, other: str) -> bool:
    try:
        parts = [urlsplit(url) for url in (one, other)]
        addresses = [
            (part.scheme, part.hostname, part.port or {"http": 80}.get(part.scheme, 443))
            for part in parts
        ]
    except ValueError:
        return False
    # Our links have no user, query or fragment.
    plain = not (parts[0].query or parts[0].fragment or "@" in parts[0].netloc)
    return plain and addresses[0] == addresses[1] and parts[0].path == parts[1].path
