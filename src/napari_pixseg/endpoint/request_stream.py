"""Streams the body of a request: limited in size and time, unpacked, without preamble."""

from __future__ import annotations

import time
import zlib
from asyncio import wait_for
from collections.abc import AsyncGenerator

from starlette.formparsers import MultiPartException
from starlette.requests import Request

from napari_pixseg.endpoint.settings import Settings
from napari_pixseg.errors import (
    Cancelled,
    NotAnImage,
    ParameterError,
    PixsegError,
    TooLarge,
    TooSlow,
)

_BLOCK_BYTES = 1 << 16
_GZIP_WINDOW = 31
# In bytes a second; a slower body would only occupy a place.
_LOWEST_RATE = 1000
# Bytes before the first boundary, where mail programs used to write a sentence.
_MAX_PREAMBLE_BYTES = 4 << 10


class ParsingStopped(MultiPartException):
    """Carries an error through the form parser.

    The parser closes its temporary files only for exceptions of this type.
    """

    def __init__(self, reason: PixsegError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def read_within_limits(
    request: Request, settings: Settings, limit: int, too_large: TooLarge
) -> AsyncGenerator[bytes, None]:
    """Yield the body, unpacked if it is gzip; stop if it is too long or too slow.

    Parameters
    ----------
    request : Request
    settings : Settings
    limit : int
        Most bytes, both received and unpacked.
    too_large : TooLarge
        The error for a body of more.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise ParsingStopped(
            NotAnImage("The Content-Encoding of a request must be gzip or identity (none).")
        )
    arriving = _receive_within_limits(request, settings, limit, too_large)
    if not encoding.endswith("gzip"):
        async for chunk in arriving:
            yield chunk
        return
    total = 0
    async for chunk in _unpack_gzip(arriving):
        total += len(chunk)
        if total > limit:
            raise ParsingStopped(too_large)
        yield chunk


async def _receive_within_limits(
    request: Request, settings: Settings, limit: int, too_large: TooLarge
) -> AsyncGenerator[bytes, None]:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise ParsingStopped(too_large)
    total = 0
    clock = _Clock(settings)
    while True:
        try:
            message = await wait_for(request.receive(), clock.seconds_left())
        except TimeoutError:
            raise ParsingStopped(clock.complaint()) from None
        if message["type"] == "http.disconnect":
            raise ParsingStopped(Cancelled("The client went away."))
        chunk = message.get("body", b"")
        total += len(chunk)
        clock.count_bytes(len(chunk))
        if total > limit:
            raise ParsingStopped(too_large)
        yield chunk
        if not message.get("more_body", False):
            return


class _Clock:
    """Limits the time of a body: by an end for the whole, and by a minimal rate."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._end = time.monotonic() + settings.seconds
        self._begin_window()

    def _begin_window(self) -> None:
        window = self._settings.header_seconds
        self._window_end = time.monotonic() + window
        self._bytes_needed = window * _LOWEST_RATE

    def count_bytes(self, number: int) -> None:
        """Count received bytes; enough of them start another window of time."""
        self._bytes_needed -= number
        if self._bytes_needed <= 0:
            self._begin_window()

    def seconds_left(self) -> float:
        """Return how long the next bytes may take."""
        return max(min(self._end, self._window_end) - time.monotonic(), 0.01)

    def complaint(self) -> TooSlow:
        """Return the error for a body that was too slow."""
        if self._window_end < self._end:
            return TooSlow(
                f"The request brought fewer than {_LOWEST_RATE} bytes a second for "
                f"{self._settings.header_seconds:g} s; send it again over a faster connection."
            )
        return TooSlow(
            f"The request took more than {self._settings.seconds:g} s to arrive; send a smaller "
            "image."
        )


async def _unpack_gzip(stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Unpack gzip in small blocks, as a chunk may unpack to a thousand times its size."""
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    is_begun = False
    try:
        async for chunk in stream:
            packed = chunk
            while packed:
                if unpacker.eof:
                    # A gzip file may have several members, one after the other.
                    unpacker = zlib.decompressobj(_GZIP_WINDOW)
                is_begun = True
                yield unpacker.decompress(packed, _BLOCK_BYTES)
                packed = unpacker.unconsumed_tail or unpacker.unused_data
        while is_begun and (rest := unpacker.decompress(b"", _BLOCK_BYTES)):
            yield rest
    except zlib.error:
        raise ParsingStopped(_damaged_gzip()) from None
    if is_begun and not unpacker.eof:
        raise ParsingStopped(_damaged_gzip())


def _damaged_gzip() -> ParameterError:
    return ParameterError(
        "The body is not valid gzip, which its Content-Encoding says it is; send it whole, or "
        "uncompressed."
    )


async def skip_preamble(
    stream: AsyncGenerator[bytes, None], boundary: bytes
) -> AsyncGenerator[bytes, None]:
    """Skip the bytes before a form's first boundary, which parsers cannot handle."""
    opening = b"--" + boundary
    start = bytearray()
    async for chunk in stream:
        start += chunk
        # A boundary starts a line; within a line, the same letters are text.
        at = 0 if start.startswith(opening) else start.find(b"\n" + opening) + 1
        is_found = at > 0 or start.startswith(opening)
        if max(at, 0 if is_found else len(start) - len(opening)) > _MAX_PREAMBLE_BYTES:
            raise ParsingStopped(
                ParameterError("The form does not begin with the boundary of its Content-Type.")
            )
        if is_found:
            yield bytes(start[at:])
            break
    else:
        yield bytes(start)
        return
    async for chunk in stream:
        yield chunk
