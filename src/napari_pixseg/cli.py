"""``napari-pixseg``: the engine from a shell.

Standard output carries one JSON manifest and nothing else; people are spoken
to on standard error.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from napari_pixseg.endpoint.cli import add_endpoint, add_serve, segment_at_endpoint
from napari_pixseg.errors import CANCELLED, ParameterError, status_of
from napari_pixseg.export.manifest import Manifest, attached_manifest
from napari_pixseg.parameters import SEMANTICS, Parameters

_log = logging.getLogger("napari_pixseg")
_OUTPUTS = "classes,recolored"


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints become manifests like all other errors."""

    def error(self, message: str) -> NoReturn:
        raise ParameterError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")

    def print_help(self, file: Any = None) -> None:
        """Print the help; one that cannot be printed is an error."""
        if file is None:
            _say(self.format_help())
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
    # NumPy's linear algebra is used for small matrices only, and its threads spin for a while
    # when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _log.handlers = [logging.StreamHandler(sys.stderr)]
    _log.setLevel(logging.INFO)
    try:
        options = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], None] = options.command
        command(options)
    except _NobodyListens as error:
        _log.error(str(error))
        return 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
        return _report(error)
    return 0


def _report(error: BaseException) -> int:
    status = status_of(error)
    sentence = str(error)
    if status == 500:
        _log.debug("A fault of ours", exc_info=error)
        sentence = f"Something unforeseen went wrong ({type(error).__name__}: {error})."
    elif isinstance(error, KeyboardInterrupt):
        sentence = CANCELLED
    answer = attached_manifest(error) or Manifest.of_error(status, sentence)
    _log.error(sentence)
    with suppress(_NobodyListens):
        _say(replace(answer, error=sentence).to_json())
    return 1


def _say(text: str, remedy: str = "") -> None:
    if sys.stdout is None:
        return  # Closed by who started this.
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python would try again at its end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        remedy = f"; {remedy}" if remedy else ""
        raise _NobodyListens(
            f"The answer could not be written to standard output ({error.strerror}){remedy}."
        ) from error


class _NobodyListens(Exception):
    """Standard output is closed or full."""


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than reading arguments."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from importlib.metadata import version

        _say(f"{parser.prog} {version('napari-pixseg')}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="napari-pixseg", description="Segment images of any size by color.")
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    _add_segment(commands)
    info = commands.add_parser("info", help="say what an input is and what a run would cost")
    info.add_argument("input", metavar="INPUT")
    _add_reading(info)
    info.set_defaults(command=_info)
    add_serve(commands)
    demo = commands.add_parser("demo", help="segment a real microscopy picture")
    demo.add_argument("folder", metavar="DIR", nargs="?", default="demo", type=Path)
    demo.set_defaults(command=_demo)
    return parser


def _add_segment(commands: Any) -> None:
    parser = commands.add_parser("segment", help="segment INPUT into OUTPUT")
    parser.add_argument("input", metavar="INPUT", help="path or URL")
    parser.add_argument("output", metavar="OUTPUT", help="an OME-Zarr, or .png .jpg .tif")
    add = parser.add_argument
    add("--ct", type=_number, help="smallest share of a class, percent (default 1)")
    add("--cs", help="color space, number or name (default 11, YUV)")
    add("--st", type=_number, help="smoothing of the histogram (default 1.5)")
    add("--semantics", choices=SEMANTICS)
    add("--denoise", type=_whole, metavar="RADIUS", help="radius of a median filter, 0 to 32")
    add("--window", type=_window, help="dtype, minmax, LOW:HIGH, or one LOW:HIGH per channel")
    _add_reading(parser)
    add("--connectivity", type=_whole, help="1 (faces) to the number of spatial axes (corners)")
    add("--background", type=_background, help="'largest' or class numbers, 1,2,...")
    add("--min-size", type=_whole, metavar="PIXELS", help="drop regions of fewer pixels")
    add("--parameters", metavar="MANIFEST", help="start from the parameters of a manifest")
    add("--outputs", default=_OUTPUTS, help=f"what to write (default {_OUTPUTS})")
    add("--blob", action="store_true", help="write the picture file alone, no JSON beside it")
    add("--overwrite", action="store_true", help="replace an existing output")
    add("--resume", action="store_true", help="finish an output that a run left unfinished")
    add("--on-error", choices=("raise", "skip"), default="raise",
        help="with skip, damaged chunks of the input become 0, no data")  # fmt: skip
    add("--memory-limit", metavar="BYTES",
        help="refuse a run of which a worker may need more, for example 4GiB")  # fmt: skip
    add("--scheduler", default="", metavar="ADDRESS", help="run on a Dask cluster, tcp://host:8786")
    add_endpoint(parser)
    parser.set_defaults(command=_segment)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--axes", help="one letter of t c z y x for each dimension")
    parser.add_argument("--channels", type=_indices, help="one to three channels, 0,1,2")


def _or_text(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Leave what cannot be parsed to Parameters, which knows what is allowed."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError:
            return text

    return parsed


_number, _whole = _or_text(float), _or_text(int)
_indices = _or_text(lambda text: tuple(int(part) for part in text.split(",")))


def _window(text: str) -> Any:
    if text in ("dtype", "minmax"):
        return text
    try:
        pairs = [pair.split(":") for pair in text.split(",")]
        return tuple((float(low), float(high)) for low, high in pairs)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be dtype, minmax, LOW:HIGH, or one LOW:HIGH per channel with commas "
            "between them"
        ) from None


def _background(text: str) -> Any:
    return text if text == "largest" else _indices(text)


def _parameters(options: argparse.Namespace) -> Parameters:
    base = Manifest.load(options.parameters).parameters if options.parameters else Parameters()
    given = {name: getattr(options, name) for name in base.to_dict()}
    return base.replace(**{name: value for name, value in given.items() if value is not None})


def _segment(options: argparse.Namespace) -> None:
    if options.output == "-":
        raise ParameterError(
            "An output is written to a path, and standard output is for the manifest; give a "
            "path, for example out.ome.zarr (or ./- for one of this name)."
        )
    if options.key_file and not options.endpoint:
        raise ParameterError(
            f"--key-file {options.key_file} is for an endpoint; give --endpoint, too, or leave it "
            "out."
        )
    if options.endpoint:
        _say(segment_at_endpoint(options, _beyond_an_endpoint(options)))
        return
    from napari_pixseg.execution.dask_cluster import connected
    from napari_pixseg.segmentation import open_segmentation

    parameters = _parameters(options)
    segmentation = open_segmentation(options.input, parameters)
    outputs = [name.strip() for name in options.outputs.split(",") if name.strip()]
    with connected(options.scheduler), _interrupt_cancels() as cancel, _Bars() as bars:
        manifest = segmentation.export(
            options.output, outputs, options.overwrite, resume=options.resume,
            blob=options.blob, on_error=options.on_error,
            memory_limit=options.memory_limit, on_event=bars.show, cancel=cancel,
        )  # fmt: skip
    for remark in manifest.details["warnings"]:
        _log.info(remark)
    _say(manifest.to_json(), "the finished output has it as its manifest")


def _beyond_an_endpoint(options: argparse.Namespace) -> list[str]:
    """Name the options that were given and that only this machine knows."""
    plain = _parser().parse_args(["segment", options.input, options.output])
    ours = ("ct", "cs", "st", "blob", "overwrite", "endpoint", "key_file")
    given = {name for name, value in vars(options).items() if value != getattr(plain, name)}
    return sorted(given - {*ours})


@contextmanager
def _interrupt_cancels() -> Iterator[threading.Event]:
    """Let Ctrl-C, or who ends this process, cancel a run before its next tile.

    A second time ends it at once. An exception in the middle of starting a thread leaves one
    that Python waits for for ever at its end.
    """
    cancel = threading.Event()

    def stop(_number: int, _frame: Any) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    unclaimed: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP.
        if (number := getattr(signal, name, None)) is not None:
            unclaimed[number] = signal.SIG_DFL
    here = threading.current_thread() is threading.main_thread()
    # Otherwise someone else has decided what a signal means.
    ours = [number for number, usual in unclaimed.items() if signal.getsignal(number) is usual]
    before = {number: signal.signal(number, stop) for number in ours} if here else {}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bars:
    """A progress bar for each stage of a run, on a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def show(self, progress: Any) -> None:
        """Draw one step; nothing where nobody looks."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        if self._bar is None or progress.stage != self._stage:
            self._close()
            self._stage = progress.stage
            self._bar = tqdm(total=progress.total, desc=f"{progress.stage:16}", unit="tile")
        self._bar.update(progress.done - self._bar.n)


def _info(options: argparse.Namespace) -> None:
    from napari_pixseg.execution.cost_estimate import estimate
    from napari_pixseg.execution.memory_estimate import peak_memory, threads_of_worker
    from napari_pixseg.execution.tiling import plan_tiles
    from napari_pixseg.sources.image import open_image

    parameters = Parameters(axes=options.axes, channels=options.channels)
    image = open_image(options.input, parameters.axes, parameters.channels)
    tiling = plan_tiles(image)
    cost = estimate(image, tiling, os.cpu_count() or 1)
    least, most = (
        peak_memory(image, tiling.tile_pixels, min(threads_of_worker(), len(tiling)), regions)
        for regions in (False, True)
    )
    source = image.source
    lines = {
        "name": source.name,
        "kind": source.kind,
        "axes": image.axes,
        "shape": " x ".join(str(n) for n in source.array.shape),
        "dtype": str(image.dtype),
        "chunks": "none" if source.chunks is None else " x ".join(str(n) for n in source.chunks),
        "channels": "gray" if image.gray else str(image.channels),
        "scale": ", ".join(f"{axis} {size:g} {source.units.get(axis, '')}".strip()
                           for axis, size in source.scale.items()) or "not given",
        "size": f"{cost.pixels / 1e6:.1f} megapixels, {cost.bytes / 2**20:.1f} MiB in memory",
        "tiles": f"{len(tiling)} of {' x '.join(str(n) for n in tiling.tile)}",
        "time": f"about {cost.seconds:.0f} s on {cost.workers} threads",
        "memory": f"at most {least / 2**20:.0f} MiB a worker, {most / 2**20:.0f} MiB with regions",
    }  # fmt: skip
    _say("".join(f"{name + ':':10}{value}\n" for name, value in lines.items()))
    for note in image.notes:
        _log.info(note)


def _demo(options: argparse.Namespace) -> None:
    from napari_pixseg.demo import run_demo

    with _Bars() as bars:
        manifest, files = run_demo(options.folder, bars.show)
    _say(manifest.to_json())
    for what, path in files.items():
        _log.info("%s: %s", what, path)


if __name__ == "__main__":
    from napari_pixseg.__main__ import program

    program()
