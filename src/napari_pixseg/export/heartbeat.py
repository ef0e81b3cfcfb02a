"""Finds out whether a writer still lives, by how long it has been silent.

The clocks of two machines may differ by minutes, so they are never compared. A living writer
touches a file at regular intervals, and the time of that file is compared with the time of a file
that is written now at the same place. If a store tells no times, the file is watched for a while.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from napari_pixseg.export.manifest import utc_now
from napari_pixseg.export.output_location import OutputLocation

# A writer gives a sign of life this often.
BEAT_SECONDS = 15.0
# A writer that has been silent for this long counts as dead.
DEAD_SECONDS = 4 * BEAT_SECONDS
# The lock of a writer that has been silent for this long may be broken on request.
BREAK_SECONDS = 2 * BEAT_SECONDS

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Writer:
    """The process that writes an output.

    Attributes
    ----------
    host : str
    pid : int
    since : str
        ISO 8601 in UTC, by the writer's own clock; for people only.
    """

    host: str
    pid: int
    since: str

    @classmethod
    def of_here(cls) -> Writer:
        """Return this process."""
        return cls(platform.node(), os.getpid(), utc_now())

    @classmethod
    def from_json(cls, values: object) -> Writer | None:
        """Read what :meth:`to_json` gave; None for anything else."""
        if not isinstance(values, Mapping):
            return None
        host, pid, since = (values.get(name) for name in ("host", "pid", "since"))
        if not (isinstance(host, str) and isinstance(pid, int) and isinstance(since, str)):
            return None
        return cls(host, pid, since)

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def is_of_this_machine(self) -> bool:
        """Whether it ran on this machine, judging by the host's name."""
        return self.host == platform.node()

    @property
    def is_running_here(self) -> bool:
        """Whether a process with its number runs on this machine."""
        if not self.is_of_this_machine or self.pid <= 0:
            return False
        if os.name == "nt":
            # There is no harmless signal on Windows; os.kill() would end the process.
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        return True

    @property
    def is_dead_here(self) -> bool:
        """Whether it ran on this machine and has ended."""
        return self.is_of_this_machine and not self.is_running_here


def measure_silence(file: OutputLocation, probe: OutputLocation) -> float | None:
    """Return for how many seconds nobody has written a file, by the clock of the store it is in.

    Parameters
    ----------
    file : OutputLocation
    probe : OutputLocation
        A temporary file in the same folder; it is written and removed again.

    Returns
    -------
    float or None
        None if the store tells no times, or the file is gone.
    """
    written = file.modified()
    if written is None:
        return None
    try:
        probe.write_bytes(b"now")
        now = probe.modified()
    finally:
        probe.remove()
    return None if now is None else max(now - written, 0.0)


def watch_silence(look: Callable[[], object], seconds: float, check: Callable[[], None]) -> float:
    """Watch for a beat; return for how many seconds there was none, at most ``seconds``.

    Parameters
    ----------
    look : callable
        Returns a value that is different after a beat.
    seconds : float
    check : callable
        Called about once a second; may raise.
    """
    first, began = look(), time.monotonic()
    while (silent := time.monotonic() - began) < seconds:
        check()
        time.sleep(min(_LOOK_SECONDS, seconds))
        if look() != first:
            return 0.0
    return silent


def describe_writer(writer: Writer | None, silence: float | None) -> str:
    """Return, in brackets, who writes an output and when it gave its last sign of life."""
    known = [] if writer is None else [str(writer)]
    if silence is not None:
        known.append(f"last heard of {silence:.0f} s ago")
    return f" ({', '.join(known)})" if known else ""


def describe_held_lock(uri: str, who: str, is_silent: bool, break_lock: bool) -> str:
    """Return a sentence about a lock that another run holds."""
    if is_silent:
        return (
            f"{uri} is locked by another run that no longer gives a sign of life{who}; if it was "
            "killed, break its lock (break_lock=True, --break-lock), or choose another path."
        )
    if break_lock:
        return (
            f"{uri} is being written by another run at this moment{who}, so its lock is not "
            f"broken; end that run, or try again {BREAK_SECONDS:.0f} s after its end."
        )
    return (
        f"{uri} is being written by another run at this moment{who}; wait until that has ended, "
        "or choose another path."
    )
