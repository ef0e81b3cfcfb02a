"""Parses forms of clients, and limits what is stored before their key is checked."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartParser

from napari_pixseg.endpoint.request_stream import ParsingStopped
from napari_pixseg.errors import KeyRefused, PixsegError

_MAX_FIELDS = 32
_MAX_FILES = 4
_HAS_FILE_NAME = re.compile(rb";\s*filename\s*=", re.IGNORECASE)
_HAS_ENCODED_FILE_NAME = re.compile(rb";\s*filename\*(0\*?)?\s*=", re.IGNORECASE)
_HAS_NAME = re.compile(rb";\s*name\s*=", re.IGNORECASE)


class FormParser(MultiPartParser):
    """Parses a form, and checks its key as soon as the key has arrived.

    Parameters
    ----------
    headers : Headers
    stream : async generator of bytes
    max_text : int
        Longest text of a field, in bytes.
    admit : callable or None
        Receives the form's key, and raises an error if it is wrong; None if the request's key was
        checked already. Until it is called, a file is kept only in memory, up to
        ``spool_max_size``.
    """

    def __init__(
        self,
        headers: Headers,
        stream: AsyncGenerator[bytes, None],
        max_text: int,
        admit: Callable[[list[str]], None] | None,
    ) -> None:
        super().__init__(
            headers,
            stream,
            max_files=_MAX_FILES,
            max_fields=_MAX_FIELDS,
            max_part_size=max_text,
        )
        self._admit = admit
        self._held_bytes = 0

    @property
    def waits_for_key(self) -> bool:
        """Whether no key has arrived yet."""
        return self._admit is not None

    async def parse(self) -> FormData:
        """Parse the form; if that fails, for example on a full disk, close its temporary files."""
        try:
            return await super().parse()
        except BaseException:
            for file in self._files_to_close_on_error:
                # Closing a file writes its remaining bytes, which fails once more.
                with suppress(OSError):
                    file.close()
            raise

    def on_headers_finished(self) -> None:
        """Begin a part; it is a file if it has a file name, however that is written."""
        part = self._current_part
        disposition = part.content_disposition or b""
        if _HAS_ENCODED_FILE_NAME.search(disposition) and not _HAS_FILE_NAME.search(disposition):
            # RFC 5987. The name itself is used nowhere.
            part.content_disposition = disposition + b'; filename="encoded"'
        if _HAS_FILE_NAME.search(part.content_disposition or b"") and not _HAS_NAME.search(
            disposition
        ):
            part.content_disposition = (part.content_disposition or b"") + b'; name=""'
        super().on_headers_finished()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a part; a file without a checked key must fit in memory."""
        if self._admit is not None and self._current_part.file is not None:
            self._held_bytes += end - start
            if self._held_bytes > self.spool_max_size:
                raise ParsingStopped(
                    KeyRefused(
                        "A key is needed before the file: give it in the header Authorization: "
                        "Bearer or WWW-Authenticate, in the query, or as the form's first field."
                    )
                )
        super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        """Finish a part; a key is checked at once."""
        super().on_part_end()
        name, value = self.items[-1]
        if self._admit is None or name != "key" or not isinstance(value, str):
            return
        if value.strip():
            admit, self._admit = self._admit, None
            try:
                admit([value])
            except PixsegError as error:
                raise ParsingStopped(error) from None
