"""``napari-pixseg``: the library from a shell.

Standard output carries one JSON manifest and nothing else. Messages for people go to standard
error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from napari_pixseg import __version__
from napari_pixseg.endpoint.serve_options import add_endpoint, add_serve, segment_at_endpoint
from napari_pixseg.errors import CANCELLED, ParameterError, status_of
from napari_pixseg.export.manifest import Manifest, attached_manifest
from napari_pixseg.interruption import INTERRUPTION
from napari_pixseg.parameter_kinds import Choice, Kind
from napari_pixseg.parameters import ParameterInfo, Parameters
from napari_pixseg.sources.read_options import ReadOptions
from napari_pixseg.terminal import PROGRESS, ProgressDisplay, choose_display

_log = logging.getLogger("napari_pixseg")
_OUTPUTS = "classes,recolored"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors become manifests, like all other errors."""

    def error(self, message: str) -> NoReturn:
        raise ParameterError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")

    def print_help(self, file: Any = None) -> None:
        """Print the help; a failure to print is an error."""
        if file is None:
            _print_answer(self.format_help())
        else:
            super().print_help(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; ``sys.argv`` if not given.

    Returns
    -------
    int
        0 only with status 200, else 1.
    """
    # NumPy's linear algebra is needed only for small matrices, but its threads spin for a while at
    # start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _log.handlers = [logging.StreamHandler(sys.stderr)]
    _log.setLevel(logging.INFO)
    try:
        options = _make_parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], None] = options.command
        command(options)
    except _OutputClosed as error:
        _log.error(str(error))
        return 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
        return _report_error(error)
    return 0


def _report_error(error: BaseException) -> int:
    status = status_of(error)
    sentence = str(error)
    if status == 500:
        _log.debug("Unforeseen error", exc_info=error)
        sentence = f"Something unforeseen went wrong ({type(error).__name__}: {error})."
    elif isinstance(error, KeyboardInterrupt):
        sentence = CANCELLED
    # A path may hold line breaks.
    sentence = sentence.replace("\r", "\\r").replace("\n", "\\n")
    answer = attached_manifest(error) or Manifest.of_error(status, sentence)
    INTERRUPTION.claim_answer(1)
    _log.error(sentence)
    with suppress(_OutputClosed):
        _print_answer(replace(answer, error=sentence).to_json(), code=1)
    return 1


def _speak_json() -> None:
    """Write messages as JSON, too, so that a program can read all of standard error."""

    class _AsJson(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps({"level": record.levelname.lower(), "message": record.getMessage()})

    for handler in _log.handlers:
        handler.setFormatter(_AsJson())


def _print_answer(text: str, remedy: str = "", code: int = 0) -> None:
    INTERRUPTION.claim_answer(code)
    if sys.stdout is None:
        return  # The parent process has closed it.
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python tries to flush it again at exit.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        remedy = f"; {remedy}" if remedy else ""
        raise _OutputClosed(
            f"The answer could not be written to standard output ({error.strerror}){remedy}."
        ) from error


class _OutputClosed(Exception):
    """Standard output is closed or full."""


class _Version(argparse.Action):
    """Prints the version the same way as all other answers."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        _print_answer(f"{parser.prog} {__version__}\n")
        parser.exit()


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="napari-pixseg", description="Segment images of any size by color.")
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    _add_segment(commands)
    info = commands.add_parser("info", help="say what an input is and what a run would cost")
    info.add_argument("input", metavar="INPUT")
    info.add_argument("--thumbnail", metavar="PNG", help="write a small picture of the input")
    _add_read_options(info)
    _add_parameters(info, _parameters_of_input())
    info.set_defaults(command=_run_info)
    add_serve(commands)
    demo = commands.add_parser("demo", help="segment a real microscopy picture")
    demo.add_argument("folder", metavar="DIR", nargs="?", default="demo", type=Path)
    _add_progress(demo)
    demo.set_defaults(command=_run_demo)
    return parser


def _add_segment(commands: Any) -> None:
    parser = commands.add_parser("segment", help="segment INPUT into OUTPUT")
    parser.add_argument("input", metavar="INPUT", help="path or URL")
    parser.add_argument("output", metavar="OUTPUT", help="an OME-Zarr, or .png .jpg .tif")
    add = parser.add_argument
    _add_parameters(parser, Parameters.descriptions())
    add("--parameters", metavar="MANIFEST", help="start from the parameters of a manifest")
    add("--outputs", help=f"what to write (default {_OUTPUTS})")
    add("--blob", action="store_true", help="write the picture file alone, no JSON beside it")
    add("--overwrite", action="store_true", help="replace an existing output")
    add("--resume", action="store_true", help="finish an output that a run left unfinished")
    broken = "take over the lock of a run that has given no sign of life for 30 s"
    add("--break-lock", action="store_true", help=broken)
    add(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="with skip, damaged chunks of the input become 0, no data",
    )
    add(
        "--memory-limit",
        metavar="BYTES",
        help="refuse a run if one worker may need more, for example 4GiB",
    )
    _add_read_options(parser)
    add("--scheduler", default="", metavar="ADDRESS", help="run on a Dask cluster, tcp://host:8786")
    _add_progress(parser)
    add_endpoint(parser)
    parser.set_defaults(command=_run_segment)


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=PROGRESS,
        help="how to tell on standard error how far a run is; lines: one every 30 s; json: one "
        "object a line, for programs (default: bar on a terminal, else lines)",
    )


def _add_read_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    often = "how often to repeat a read that fails because of the network (default %(default)s)"
    add("--retries", type=int, default=ReadOptions.retries, metavar="N", help=often)
    missing = "accept a zarr without any chunk as an image of its fill value"
    add("--allow-missing", action="store_true", help=missing)
    which = "number or name of one of several images in INPUT (default: the largest or first)"
    add("--series", metavar="IMAGE", help=which)


def _given_read_options(options: argparse.Namespace) -> ReadOptions:
    return ReadOptions(options.retries, options.allow_missing, options.series)


def _parameters_of_input() -> dict[str, ParameterInfo]:
    return {name: info for name, info in Parameters.descriptions().items() if info.opens_input}


def _add_parameters(
    parser: argparse.ArgumentParser, parameters: Mapping[str, ParameterInfo]
) -> None:
    """Add an option for each parameter; an option that is not given is None."""
    for name, info in parameters.items():
        words = info.kind.words if isinstance(info.kind, Choice) else None
        allowed = "" if words else f"; {info.kind.allowed_text}"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_text_reader(info.kind),
            choices=words,
            metavar=info.metavar,
            help=f"{info.help}{allowed} (default: {info.default_text})".replace("%", "%%"),
        )


def _text_reader(kind: Kind) -> Callable[[str], object]:
    def read_text(text: str) -> object:
        try:
            return kind.parse(text)
        except ParameterError as error:
            # argparse shows only the message of this type of error.
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_text


def _given_parameters(options: argparse.Namespace) -> Parameters:
    base = Manifest.load(options.parameters).parameters if options.parameters else Parameters()
    given = {name: getattr(options, name) for name in base.descriptions()}
    return base.replace(**{name: value for name, value in given.items() if value is not None})


def _run_segment(options: argparse.Namespace) -> None:
    if options.output == "-":
        raise ParameterError(
            "Standard output is for the manifest, so that the output needs a path; give one, for "
            "example out.ome.zarr (or ./- for a file of this name)."
        )
    if (options.key_file or options.store) and not options.endpoint:
        option = f"--key-file {options.key_file}" if options.key_file else "--store"
        raise ParameterError(f"{option} is for an endpoint; give --endpoint, too, or leave it out.")
    if options.progress == "json":
        _speak_json()
    if options.endpoint:
        with choose_display(options.progress, "waiting for the endpoint"):
            answer = segment_at_endpoint(options, _beyond_an_endpoint(options))
        _print_answer(answer)
        return
    with choose_display(options.progress, "opening the input") as display:
        manifest = _segment_here(options, display)
    for remark in manifest.details["warnings"]:
        _log.info(remark)
    _print_answer(manifest.to_json(), "the finished output has it as its manifest")


def _segment_here(options: argparse.Namespace, display: ProgressDisplay) -> Manifest:
    from napari_pixseg.execution.dask_cluster import connected
    from napari_pixseg.segmentation import open_segmentation

    parameters = _given_parameters(options)
    segmentation = open_segmentation(options.input, parameters, _given_read_options(options))
    wanted = _OUTPUTS if options.outputs is None else options.outputs
    outputs = [name.strip() for name in wanted.split(",") if name.strip()]
    with connected(options.scheduler), INTERRUPTION.cancel_run() as cancel:
        return segmentation.export(
            options.output,
            outputs,
            options.overwrite,
            resume=options.resume,
            break_lock=options.break_lock,
            blob=options.blob,
            on_error=options.on_error,
            memory_limit=options.memory_limit,
            on_event=display.show,
            cancel=cancel,
        )


def _beyond_an_endpoint(options: argparse.Namespace) -> list[str]:
    """Name the given options that an endpoint does not support."""
    plain = _make_parser().parse_args(["segment", options.input, options.output])
    given = {name for name, value in vars(options).items() if value != getattr(plain, name)}
    known = {
        *Parameters.names_where(is_endpoint=True),
        *Parameters.names_where(is_extension=True),
        *("blob", "endpoint", "key_file", "outputs", "overwrite", "progress", "store"),
    }
    return sorted(given - known)


def _run_info(options: argparse.Namespace) -> None:
    from napari_pixseg.info_command import describe_input

    given = {name: getattr(options, name) for name in _parameters_of_input()}
    reading = _given_read_options(options)
    parameters = Parameters(**given)
    text, notes = describe_input(options.input, parameters, reading, options.thumbnail)
    _print_answer(text)
    for note in notes:
        _log.info(note)


def _run_demo(options: argparse.Namespace) -> None:
    from napari_pixseg.demo import run_demo

    if options.progress == "json":
        _speak_json()
    with (
        choose_display(options.progress, "making the mosaic") as display,
        INTERRUPTION.cancel_run() as cancel,
    ):
        manifest, files = run_demo(options.folder, display.show, cancel)
    _print_answer(manifest.to_json())
    for what, path in files.items():
        _log.info("%s: %s", what, path)
