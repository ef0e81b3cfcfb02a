"""What ``napari-pixseg segment --endpoint`` does."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from napari_pixseg.endpoint import KEY_VARIABLE
from napari_pixseg.endpoint.client import Endpoint
from napari_pixseg.endpoint.keys import load_keys
from napari_pixseg.errors import OutputConflict, ParameterError
from napari_pixseg.export.manifest import Manifest, new_id
from napari_pixseg.export.output_location import OutputLocation
from napari_pixseg.parameters import Parameters


def segment_and_download(options: argparse.Namespace, local_only: Sequence[str]) -> str:
    """Segment at an endpoint and write the picture; return the answer as JSON.

    Parameters
    ----------
    options : Namespace
        Of the command ``segment``.
    local_only : sequence of str
        Names of options that were given but that no endpoint supports.

    Raises
    ------
    ParameterError, OutputConflict
        Before anything is sent.
    """
    if local_only:
        raise ParameterError(
            f"An endpoint knows ct, cs and st only; leave out --{local_only[0].replace('_', '-')}, "
            "or run it here."
        )
    target = OutputLocation(options.output)
    if target.suffix != ".png":
        raise ParameterError(f"An endpoint returns a PNG, so {target.name} must end in .png.")
    if not options.overwrite and target.exists():
        raise OutputConflict(
            f"{target.uri} exists already; choose another path, or give --overwrite."
        )
    endpoint = Endpoint(options.endpoint, _read_key(options.key_file))
    names = Parameters.names_where(is_endpoint=True)
    values = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in values.items() if value is not None}
    if options.blob:
        target.write_bytes(endpoint.segment(options.input, **given, blob=True))
        return Manifest(200, new_id(), target.uri).to_json()
    answer: Manifest = endpoint.segment(options.input, **given)
    target.write_bytes(endpoint.download(str(answer.link)))
    return answer.to_json()


def _read_key(path: str | None) -> str | None:
    if path is None:
        return os.environ.get(KEY_VARIABLE) or None
    if not Path(path).is_file():
        raise ParameterError(f"There is no key file {path}; write the key into one.")
    return load_keys(path)[0]
