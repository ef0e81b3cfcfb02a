"""The server's log: lines for people or JSON, on standard error or in a file, without secrets.

Neither query nor headers are logged, since they may hold keys and addresses of images, and no
address of a client.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from typing import Protocol

from napari_pixseg.errors import ParameterError

_LOGGERS = ("napari_pixseg", "uvicorn")
_log = logging.getLogger("napari_pixseg.endpoint")
_FIELDS = ("method", "path", "status", "job", "bytes_received", "bytes_sent")
# Requests of these paths say nothing about the work.
_QUIET_PATHS = ("/health", "/metrics")


class LoggedExchange(Protocol):
    """The facts about a request in the log."""

    path: str
    method: str
    status: int
    job: str | None
    bytes_received: int
    bytes_sent: int
    seconds: float


def log_request(exchange: LoggedExchange) -> None:
    """Log an answered request."""
    if exchange.path in _QUIET_PATHS:
        return
    values = {name: getattr(exchange, name) for name in _FIELDS}
    values["seconds"] = round(exchange.seconds, 4)
    told = f"{exchange.method} {exchange.path} {exchange.job or '-'} {exchange.status}"
    _log.info(told, extra={"request": values})


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        line.update(getattr(record, "request", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


class ServerLog:
    """The destination of the log.

    Parameters
    ----------
    form : {"text", "json"}
    path : str
        File; empty for standard error.

    Raises
    ------
    ParameterError
        If the file cannot be written.
    """

    def __init__(self, form: str, path: str) -> None:
        self._handler: logging.Handler
        try:
            # This handler notices when the file was moved away, for example by logrotate.
            self._handler = (
                logging.handlers.WatchedFileHandler(path, encoding="utf-8")
                if path
                else logging.StreamHandler(sys.stderr)
            )
        except OSError as error:
            raise ParameterError(
                f"The log file {path} cannot be written ({error.strerror}); give another "
                "--log-file."
            ) from None
        if form == "json":
            self._handler.setFormatter(JsonLines())
        for name in _LOGGERS:
            logging.getLogger(name).handlers = [self._handler]

    def reopen(self) -> None:
        """Open the file again if it was moved away."""
        if isinstance(self._handler, logging.handlers.WatchedFileHandler):
            self._handler.reopenIfNeeded()
