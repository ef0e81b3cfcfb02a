"""Answers of a web server that are read no further than they can need to be.

A server may send for ever, and what it sends compressed (Content-Encoding) is opened on the way.
"""

from __future__ import annotations

from fsspec.implementations.http import aiohttp

from napari_pixseg.sources.size_limits import MOST_BYTES, refuse_stored_size


class BoundedAnswer(aiohttp.ClientResponse):  # type: ignore[misc]
    """An answer whose body is read up to the limit of the task that asked for it."""

    _body: bytes | None = None

    async def read(self) -> bytes:
        """Read the body.

        Raises
        ------
        OversizedChunk
            If it is longer than `MOST_BYTES` says.
        """
        most = MOST_BYTES.get()
        if most is None or self._body is not None:
            whole: bytes = await super().read()
            return whole
        size, parts = 0, []
        try:
            async for part in self.content.iter_any():
                size += len(part)
                refuse_stored_size(size, most)
                parts.append(part)
        except BaseException:
            self.close()
            raise
        content = b"".join(parts)
        self._body = content
        return content
