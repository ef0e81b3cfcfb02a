"""Results on disk or in an object store: a picture each, with its manifest beside it."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from napari_pixseg.errors import ParameterError
from napari_pixseg.export.manifest import Manifest
from napari_pixseg.export.output_location import OutputLocation

_RESULT_NAME = re.compile(r"[0-9a-f]{32}\.png")


@dataclass(frozen=True)
class ResultStorage:
    """Where results are kept.

    Nothing here looks through the folder, which may hold millions of results.

    Attributes
    ----------
    location : OutputLocation
        Folder, or URL of one.
    """

    location: OutputLocation

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
            # The text of others may quote an address with its secrets.
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ParameterError(
                f"The storage {self.location.uri} cannot be written ({reason}); make it, and let "
                "this server write there, or give another --storage."
            ) from None

    def path_of(self, name: str) -> Path | None:
        """Return the file of a finished result; None for anything else."""
        if not _RESULT_NAME.fullmatch(name) or not self.location.is_local:
            return None
        picture = self.location.local_path / name
        # The manifest is written last, so a picture without one is unfinished.
        finished = picture.with_name(f"{name}.json").is_file() and picture.is_file()
        return picture if finished else None

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
