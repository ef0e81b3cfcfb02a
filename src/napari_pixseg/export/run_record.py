"""The run record: how far a run has come, why it ended, and whether another may continue it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from napari_pixseg.errors import (
    InputChanged,
    InputUnseen,
    OutputConflict,
    OutputLocked,
    OutputLost,
    status_of,
)
from napari_pixseg.export import heartbeat
from napari_pixseg.export.heartbeat import Writer, measure_silence, watch_silence
from napari_pixseg.export.manifest import JsonObject, Manifest, utc_now
from napari_pixseg.export.output_location import RECORD_NAME, TOKEN_PREFIX, OutputLocation

# The fields that identify an input. How it was opened does not matter.
_INPUT = ("uri", "series", "identity", "shape", "dtype", "axes", "channels", "scale", "units")


# Set if the input may have been missing or different during a read, so that nothing is kept.
DISTRUSTED = "distrusted"

# Bytes of the chunks of each array of a finished store.
SIZES = "sizes"


def load_record(location: OutputLocation) -> JsonObject | None:
    """Return the run record of a store; None if it has no readable one."""
    try:
        record = json.loads(location.child(RECORD_NAME).read_bytes() or b"null")
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


class RunRecord:
    """The run record of this process's run.

    Parameters
    ----------
    location : OutputLocation
        The store.
    manifest : Manifest
        The manifest whose id and details are recorded.
    before : dict or None
        The record that existed when this run began.
    """

    def __init__(
        self, location: OutputLocation, manifest: Manifest, before: JsonObject | None
    ) -> None:
        self._store = location
        self._location = location.child(RECORD_NAME)
        self._values: JsonObject = {"id": manifest.id, "state": "running", "pass": "counting"}
        self._values |= {"writer": Writer.of_here().to_json(), **manifest.details}
        # The run that this one resumes or replaces may have left its own record.
        self._expected = {manifest.id, (before or {}).get("id")}
        self._exists = False
        self._lock = threading.Lock()

    def write(self, **changes: object) -> None:
        """Change fields and write the record.

        Raises
        ------
        OutputConflict
            If another run took the output over, or the output is no longer there.
        """
        with self._lock:
            self._values |= changes
            self.refuse_to_share()
            if not self._location.is_local:
                self._values["beat"] = utc_now()
            self._location.write_bytes(json.dumps(self._values, indent=2).encode())
            self._exists = True

    def refuse_to_share(self) -> None:
        """Raise OutputConflict if another run has taken the output over since this one began.

        Raise OutputLost if this run's record is missing, because somebody has moved the output.
        """
        other = (load_record(self._store) or {}).get("id")
        if other is None and self._exists:
            raise OutputLost(
                f"{self._store.uri} was moved away, removed or replaced while it was written, so "
                "it is not finished; put it back and run again with resume (resume=True, "
                "--resume), or run anew."
            )
        if other is not None and other not in self._expected:
            raise OutputConflict(
                f"{self._store.uri} was taken by another run meanwhile, so this one stops; "
                "choose another path, or wait until the other has ended."
            )

    def record_end(self, error: BaseException) -> None:
        """Record why the run ended, unless it never wrote to the output.

        A broken disk may be the reason, so a failure to write the record is not reported.
        """
        if not self._exists:
            return
        status = status_of(error)
        state = "cancelled" if status == 499 else "failed"
        if isinstance(error, (InputChanged, InputUnseen)):
            self._values[DISTRUSTED] = True
        with suppress(Exception):
            self.write(state=state, status=status, error=str(error) or repr(error), ended=utc_now())

    @contextmanager
    def keep_beating(self) -> Iterator[None]:
        """Report regularly that the run lives, on object stores, which have no locks."""
        if self._location.is_local:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(ended,), name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(heartbeat.BEAT_SECONDS):
            # The network may fail for a while. If the output was lost, the next write() says so.
            with suppress(Exception):
                if self._exists:
                    self.write()


def refuse_living_run(
    location: OutputLocation, break_lock: bool = False, check: Callable[[], None] | None = None
) -> None:
    """Refuse to write to an object store where another run was alive a moment ago.

    Parameters
    ----------
    location : OutputLocation
    break_lock : bool
        Whether a run that has been silent for a few beats counts as dead.
    check : callable, optional
        Called while a store without times is watched; if not given, such a store is not watched.

    Raises
    ------
    OutputConflict
    """
    record = load_record(location) or {}
    if record.get("state") != "running" or "beat" not in record:
        return
    limit = heartbeat.BREAK_SECONDS if break_lock else heartbeat.DEAD_SECONDS
    probe = location.child(f"{TOKEN_PREFIX}{os.urandom(8).hex()}")
    silence = measure_silence(location.child(RECORD_NAME), probe)
    if silence is None and check is not None:
        silence = watch_silence(partial(_last_beat, location), limit, check)
    if silence is None or silence >= limit:
        return
    error = OutputLocked if silence >= heartbeat.BREAK_SECONDS else OutputConflict
    raise error(
        f"{location.uri} is being written by another run{_describe_holder(record)}, alive "
        f"{silence:.0f} s ago; wait until that has ended, or {limit - silence:.0f} s if it was "
        f"killed{_may_be_broken(silence)}, or choose another path."
    )


def _may_be_broken(silence: float) -> str:
    is_silent = silence >= heartbeat.BREAK_SECONDS
    return ", or break its lock (break_lock=True, --break-lock)" if is_silent else ""


def _last_beat(location: OutputLocation) -> object:
    record = load_record(location) or {}
    return record.get("id"), record.get("beat"), record.get("state")


def _describe_holder(record: JsonObject) -> str:
    writer = Writer.from_json(record.get("writer"))
    return "" if writer is None else f" ({writer})"


def refuse_other_run(location: OutputLocation, there: JsonObject, here: JsonObject) -> None:
    """Refuse to continue a run with parameters, input or outputs that differ from its own.

    Parameters
    ----------
    location : OutputLocation
    there, here : dict
        The run record in the store, and the details of this run.

    Raises
    ------
    OutputConflict
        Names everything that differs, with the values then and now.
    """
    # Converted like the record, which was read from JSON and has lists for tuples.
    here = json.loads(json.dumps(here))
    try:
        differences = [
            *_list_differences(there["parameters"], here["parameters"], here["parameters"], ""),
            *_list_differences(there["input"], here["input"], _INPUT, "the input's "),
            *_list_differences(
                _outputs_and_version(there),
                _outputs_and_version(here),
                ("outputs", "napari-pixseg"),
                "",
            ),
            *_no_longer_skipped(there.get("skipped"), here.get("skipped")),
        ]
    except (KeyError, TypeError, AttributeError):
        raise unreadable_record(location) from None
    if differences:
        raise OutputConflict(
            f"{location.uri} cannot be resumed, because {', and '.join(differences)}; use what the "
            "run began with, or ask to overwrite it (overwrite=True, --overwrite)."
        )


def _no_longer_skipped(there: JsonObject | None, here: JsonObject | None) -> list[str]:
    """Describe a chunk that the earlier run skipped and this run would read."""
    skipped_there = {chunk["name"] for chunk in (there or {"chunks": []})["chunks"]}
    skipped_here = {chunk["name"] for chunk in (here or {"chunks": []})["chunks"]}
    more = sorted(skipped_there - skipped_here)
    return [f"{more[0]} was left out as damaged and now is not (on_error='skip')"] if more else []


def unreadable_record(location: OutputLocation) -> OutputConflict:
    """Return the error for a store whose run record cannot be read."""
    return OutputConflict(
        f"{location.uri} cannot be resumed, because its {RECORD_NAME} cannot be read; "
        "ask to overwrite it (overwrite=True, --overwrite), or choose another path."
    )


def _outputs_and_version(details: JsonObject) -> JsonObject:
    version = details["software"]["napari-pixseg"]
    return {"outputs": sorted(details["outputs"]), "napari-pixseg": version}


def _list_differences(
    there: JsonObject, here: JsonObject, names: Iterable[str], whose: str
) -> list[str]:
    return [
        # Showing two hashes or times would explain nothing.
        "the input has been written since"
        if name == "identity"
        else f"{whose}{name} was {_as_text(there.get(name))} and is now {_as_text(here.get(name))}"
        for name in names
        if there.get(name) != here.get(name)
    ]


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
