"""Whether a writer still lives: how long it has been silent, by the clock of its output's store.

The clocks of two machines may differ by minutes, so they are never compared. A file that a living
writer touches at regular intervals is compared with one that is written now at the same place.
Where a store tells no times, the file is watched for a while.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from napari_pixseg.export.manifest import utc_now
from napari_pixseg.export.output_location import OutputLocation

# A writer tells this often that it lives.
BEAT_SECONDS = 15.0
# Silent for so long, it counts as dead.
DEAD_SECONDS = 4 * BEAT_SECONDS
# Silent for so long, its lock may be broken on request.
BREAK_SECONDS = 2 * BEAT_SECONDS

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Writer:
    """Who writes an output.

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
        """Whether it ran here, as far as names tell."""
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


def measure_silence(file: OutputLocation, probe: OutputLocation) -> float | None:
    """Return for how many seconds nobody has written a file, by the clock of the store it is in.

    Parameters
    ----------
    file : OutputLocation
    probe : OutputLocation
        Where a file may be written in the same folder; it is removed again.

    Returns
    -------
    float or None
        None where the store tells no times, or the file is gone.
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
    """Watch for a beat; return for how many seconds none was seen, at most as many as asked for.

    Parameters
    ----------
    look : callable
        Returns something that differs after a beat.
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
    """Return who writes an output and when it was last heard of, in brackets."""
    known = [] if writer is None else [str(writer)]
    if silence is not None:
        known.append(f"last heard of {silence:.0f} s ago")
    return f" ({', '.join(known)})" if known else ""
