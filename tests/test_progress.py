"""How far a run is, on standard error: bars, lines, JSON, and nothing for what takes no time."""

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import numpy as np
import pytest
from PIL import Image

from napari_pixseg import cli, terminal
from napari_pixseg.execution.progress import Progress
from napari_pixseg.terminal import choose_display


class NotTheScreen(io.StringIO):
    """Standard error that knows when something was written to it."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def flush(self):
        """Tell that a line is there."""
        self.written.set()


def watch_screen(monkeypatch):
    """Return standard error, which is no terminal; called in a test, as pytest sets its own."""
    stream = NotTheScreen()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_line_is_written_though_nothing_happens(monkeypatch):
    screen = watch_screen(monkeypatch)
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.01)
    with choose_display(None, "opening the input"):
        assert screen.written.wait(60)
    assert re.match(r"opening the input: \d+ s so far\n", screen.getvalue())


def test_a_line_says_what_is_done_how_fast_and_what_is_left(monkeypatch):
    screen = watch_screen(monkeypatch)
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.01)
    with choose_display("lines", "opening the input") as display:
        display.show(Progress("classes", 0, 4096))
        display.show(Progress("classes", 120, 4096))
        screen.written.clear()
        assert screen.written.wait(60)
    pattern = (
        r"classes: \d+ s, 120 of 4096 tiles, [\d.e+]+ a second, "
        r"about (\d+ h )?(\d+ min)? ?(\d+ s)? left"
    )
    assert re.fullmatch(pattern, screen.getvalue().splitlines()[-1])


@pytest.mark.parametrize(
    ("progress", "seconds", "earlier", "line"),
    [
        (Progress("classes", 120, 4096), 30, 0,
         "classes: 30 s, 120 of 4096 tiles, 4 a second, about 16 min 34 s left"),
        # What an earlier run has done took no time of this one.
        (Progress("classes", 2060, 4096), 30, 2000,
         "classes: 30 s, 2060 of 4096 tiles, 2 a second, about 16 min 58 s left"),
        (Progress("regions", 0, 9), 90, 0,
         "regions: 1 min 30 s, 0 of 9 tiles, 0 a second, time left unknown"),
        (Progress("regions", 1, 9), 3600, 0,
         "regions: 1 h 0 min, 1 of 9 tiles, 0.000278 a second, about 8 h 0 min left"),
    ],
)  # fmt: skip
def test_lines_and_json_say_the_same(progress, seconds, earlier, line):
    assert terminal._as_line(progress, seconds, earlier) == line
    told = json.loads(terminal._as_json(progress, seconds, earlier))
    assert set(told) == {"stage", "done", "total", "seconds", "rate", "left"}
    assert (told["stage"], told["done"], told["total"]) == (
        progress.stage, progress.done, progress.total
    )  # fmt: skip
    assert (told["left"] is None) == ("unknown" in line)


def test_after_the_run_nothing_is_written(monkeypatch):
    screen = watch_screen(monkeypatch)
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.001)
    with choose_display("lines", "opening"):
        assert screen.written.wait(60)
    length = len(screen.getvalue())
    assert not any(thread.name == "progress" for thread in threading.enumerate())
    assert len(screen.getvalue()) == length


def test_standard_error_that_is_closed_ends_no_run(monkeypatch):
    closed = NotTheScreen()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with choose_display("json", "opening") as display:
        display.show(Progress("classes", 0, 4))
    monkeypatch.setattr(sys, "stderr", None)
    with choose_display(None, "opening") as display:
        display.show(Progress("classes", 0, 4))


# The command ---------------------------------------------------------------------


@pytest.fixture
def arguments(tmp_path):
    """The command's arguments for a small picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return ["segment", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--ct=0", "--st=20"]


def call(arguments, **streams):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "napari_pixseg", *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, **streams)


@pytest.mark.parametrize("options", [[], ["--progress=lines"], ["--progress=none"]])
def test_a_small_picture_is_segmented_without_a_word(arguments, options):
    assert call([*arguments, *options], stderr=subprocess.PIPE).stderr == b""


def test_programs_read_objects_and_nothing_else(arguments):
    # A picture with alpha has something to say to people, too.
    done = call([*arguments, "--progress=json", "--axes=yxc"], stderr=subprocess.PIPE)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    steps = [one for one in told if "stage" in one]
    assert {"colors", "picture"} <= {step["stage"] for step in steps}
    for stage in ("colors", "picture"):
        first, *_, last = [step for step in steps if step["stage"] == stage]
        assert (first["done"], last["done"]) == (0, last["total"])
    assert json.loads(done.stdout)["status"] == 200


def test_errors_for_programs_are_objects_too(arguments, capfd):
    assert cli.main([arguments[0], "no.png", *arguments[2:], "--progress=json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(err) == {"level": "error", "message": json.loads(out)["error"]}


def test_a_terminal_shows_a_bar_unless_told_otherwise(arguments):
    shown = {}
    for how in ("bar", "none", None):
        ours, theirs = pty.openpty()
        # Rows and columns; tqdm draws nothing where there are none.
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        options = [] if how is None else [f"--progress={how}"]
        call([*arguments, *options, "--overwrite"], stderr=theirs)
        os.close(theirs)
        try:
            shown[how] = os.read(ours, 65536)
        except OSError:
            # Linux says so when nothing was written and nobody can write any more.
            shown[how] = b""
        os.close(ours)
    assert b"tile" in shown["bar"]
    assert b"tile" in shown[None]
    assert shown["none"] == b""


def test_there_are_four_ways_to_tell(arguments, capsys):
    assert cli.main([*arguments, "--progress=loud"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert all(how in error for how in ("'loud'", "none", "bar", "lines", "json"))
