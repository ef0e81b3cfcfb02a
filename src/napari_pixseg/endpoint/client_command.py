"""Runs ``napari-pixseg segment --endpoint``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_pixseg.endpoint import ANSWER_PICTURES, KEY_VARIABLE
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
        option = f"--{local_only[0].replace('_', '-')}"
        raise ParameterError(
            f"An endpoint has nothing like {option}; leave it out, or run it here."
        )
    target = OutputLocation(options.output)
    if target.suffix != ".png":
        raise ParameterError(f"An endpoint returns a PNG, so {target.name} must end in .png.")
    if not options.overwrite and target.exists():
        raise OutputConflict(
            f"{target.uri} exists already; choose another path, or give --overwrite."
        )
    endpoint = Endpoint(options.endpoint, _read_key(options.key_file))
    given = {**_given_parameters(options), **_given_output(options.outputs)}
    img = endpoint.store(options.input).link if options.store else options.input
    if options.blob:
        target.write_bytes(endpoint.segment(img, **given, blob=True))
        answer = Manifest(200, new_id(), target.uri)
    else:
        answer = endpoint.segment(img, **given)
        target.write_bytes(endpoint.download(str(answer.link)))
    stored = {"stored": img} if options.store else {}
    return replace(answer, details={**answer.details, **stored}).to_json()


def _given_parameters(options: argparse.Namespace) -> dict[str, Any]:
    names = Parameters.names_where(is_endpoint=True) + Parameters.names_where(is_extension=True)
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _given_output(text: str | None) -> dict[str, Any]:
    """Return the requested content of the picture, if any; an endpoint gives only one."""
    if text is None:
        return {}
    if text.strip() not in ANSWER_PICTURES:
        raise ParameterError(
            f"--outputs {text} must be {' or '.join(ANSWER_PICTURES)}, because an endpoint's "
            "answer is one picture."
        )
    return {"outputs": text.strip()}


def _read_key(path: str | None) -> str | None:
    if path is None:
        return os.environ.get(KEY_VARIABLE) or None
    if not Path(path).is_file():
        raise ParameterError(f"There is no key file {path}; write the key into one.")
    return load_keys(path)[0]
