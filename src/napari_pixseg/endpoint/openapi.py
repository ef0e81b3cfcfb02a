"""Describes the API for programs, as OpenAPI 3.0."""

from __future__ import annotations

from typing import Any, TypeAlias

from napari_pixseg import __version__
from napari_pixseg.endpoint import ANSWER_PICTURES
from napari_pixseg.endpoint.request_parameters import (
    FALSE,
    MOST_OF_COMMENT,
    TRUE,
    pattern_of,
    served_parameters,
)
from napari_pixseg.parameter_kinds import Choice, Kind, Number, NumberedChoice, WholeNumber
from napari_pixseg.parameter_sequences import AxisLetters, Intervals, WholeNumbers
from napari_pixseg.parameters import ParameterInfo, Parameters

_Schema: TypeAlias = dict[str, Any]

_REASONS = {
    400: "A parameter is missing, out of range or not of its kind, or img may not be fetched.",
    401: "The key is missing or wrong.",
    404: "There is nothing at img, or it cannot be reached.",
    408: "The request came too slowly.",
    413: "The image has too many bytes, pixels or planes.",
    415: "The request is neither a form nor JSON, or the image is not of a known format.",
    422: "No class reaches ct, or there are too many.",
    429: "This key was used too often.",
    500: "An error inside the server.",
    503: "The queue is full.",
    507: "The server has no space.",
}


def document(needs_key: bool) -> _Schema:
    """Return the OpenAPI document.

    Parameters
    ----------
    needs_key : bool
        Whether this server asks for a key.
    """
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "SEGMENT",
            "version": __version__,
            "description": "Segments an image by analyzing and identifying units that are similar.",
        },
        "paths": {
            "/segment": {"get": _get_segment(needs_key), "post": _post_segment(needs_key)},
            "/store": {"post": _post_store(needs_key)},
            "/results/{name}": {"get": _get_result()},
            "/openapi.json": {"get": _get_document()},
        },
        "components": {
            "schemas": _answer_schemas(),
            "securitySchemes": _key_schemes() if needs_key else {},
        },
    }


def _get_segment(needs_key: bool) -> _Schema:
    url = {"name": "img", "in": "query", "required": True, "schema": _url_schema()}
    others = [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in _parameter_schemas(as_text=True).items()
    ]
    return _operation(
        "segmentUrl", "Segment the image at a URL", needs_key, parameters=[url, *others]
    )


def _post_segment(needs_key: bool) -> _Schema:
    upload = {"type": "string", "format": "binary", "description": "The image, as a file."}
    key = {"key": {"type": "string", "writeOnly": True}}
    texts = {**_parameter_schemas(as_text=True), **key}
    values = {"img": _url_schema(), **_parameter_schemas(as_text=False), **key}
    by_url = _object_schema({"img": _url_schema(), **texts}, ["img"])
    content = {
        # The image may be the part `img` as well, or any other if it is the only file.
        "multipart/form-data": {"schema": _object_schema({"file": upload, **texts}, ["file"])},
        "application/x-www-form-urlencoded": {"schema": by_url},
        "application/json": {"schema": _object_schema(values, ["img"])},
    }
    body = {"required": True, "content": content}
    return _operation("segment", "Segment an uploaded image", needs_key, requestBody=body)


def _post_store(needs_key: bool) -> _Schema:
    upload = {"type": "string", "format": "binary", "description": "The image."}
    comment = {"type": "string", "maxLength": MOST_OF_COMMENT, "description": "Kept beside it."}
    key = {"type": "string", "writeOnly": True}
    form = _object_schema({"file": upload, "comment": comment, "key": key}, ["file"])
    body = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    done = _operation("store", "Keep an image, to be segmented later", needs_key, requestBody=body)
    segment = {"operationId": "segmentUrl", "parameters": {"img": "$response.body#/link"}}
    done["responses"]["200"]["links"] = {"segment": segment}
    return done


def _operation(name: str, summary: str, needs_key: bool, **parts: object) -> _Schema:
    security: _Schema = {"security": [{way: []} for way in _key_schemes()]} if needs_key else {}
    return {
        "operationId": name,
        "summary": summary,
        **parts,
        "responses": _all_responses(),
        **security,
    }


def _url_schema() -> _Schema:
    return {"type": "string", "format": "uri", "description": "http or https, a public address."}


def _parameter_schemas(as_text: bool) -> _Schema:
    """Describe the parameters that this server knows, ``blob`` and ``outputs``."""
    known = Parameters.descriptions()
    schemas = {name: _describe(known[name]) for name in served_parameters()}
    # A query and a form have no booleans.
    words = {"type": "string", "enum": [*TRUE, *FALSE]}
    numbers = {"type": "integer", "enum": [1, 0]}
    switch = words if as_text else {"anyOf": [{"type": "boolean"}, numbers, words]}
    schemas["blob"] = {**switch, "description": "Whether the answer is the picture itself."}
    schemas["outputs"] = {
        "type": "string",
        "enum": list(ANSWER_PICTURES),
        "default": ANSWER_PICTURES[0],
        "description": "What the picture shows: the classes in their colors, the number of each "
        "pixel's class, or of its region.",
    }
    return schemas


def _describe(info: ParameterInfo) -> _Schema:
    schema = _schema_of_kind(info.kind)
    default = info.default
    if default is not None:
        # JSON has no enumerations.
        schema["default"] = int(default) if isinstance(default, int) else default
    meaning = f"{info.help[0].upper()}{info.help[1:]}"
    listing = f": {info.kind.listing}" if isinstance(info.kind, NumberedChoice) else ""
    exact = info.exact_kind
    wider = "" if exact is None else f" With semantics imagemagick6: {exact.allowed_text}."
    return {**schema, "description": f"{meaning}{listing}.{wider}"}


def _schema_of_kind(kind: Kind) -> _Schema:
    match kind:
        case Number():
            lowest: _Schema = {"minimum": kind.low}
            if kind.excludes_low:
                lowest["exclusiveMinimum"] = True
            return {"type": "number", **lowest, **_maximum(kind.high)}
        case WholeNumber():
            return {"type": "integer", "minimum": kind.low, **_maximum(kind.high)}
        case NumberedChoice():
            return {"type": "integer", "minimum": 1, "maximum": len(kind.members)}
        case Choice():
            return {"type": "string", "enum": list(kind.words)}
        case WholeNumbers():
            # Empty text counts as absent.
            return {"type": "string", "pattern": f"^$|{pattern_of(kind)}"}
        case Intervals() | AxisLetters():
            # As on the command line, because a query consists of text.
            return {"type": "string"}
    raise TypeError(f"There is no schema for {type(kind).__name__}; add one here.")


def _maximum(high: float | None) -> _Schema:
    return {} if high is None else {"maximum": high}


def _object_schema(properties: _Schema, required: list[str]) -> _Schema:
    return {"type": "object", "required": required, "properties": properties}


def _all_responses() -> _Schema:
    png = {"schema": {"type": "string", "format": "binary"}}
    # Of an answer as JSON.
    picture = {"operationId": "result", "parameters": {"name": "{$response.body#/id}.png"}}
    done = {
        "description": "Done: where the picture is, or with blob the picture.",
        "content": {"application/json": {"schema": _reference("Done")}, "image/png": png},
        "links": {"picture": picture},
    }
    failed = {str(status): _failed_response(text) for status, text in _REASONS.items()}
    header = {"required": True, "schema": {"type": "string"}}
    failed["401"]["headers"] = {"WWW-Authenticate": header}
    failed["429"]["headers"] = {"Retry-After": header}
    failed["503"]["headers"] = {"Retry-After": header}
    return {"200": done, **failed}


def _failed_response(text: str) -> _Schema:
    return {
        "description": text,
        "content": {"application/json": {"schema": _reference("Failed")}},
    }


def _get_result() -> _Schema:
    name = {"type": "string", "pattern": r"^[0-9a-f]{32}\.(png|jpg|gif|bmp|webp|tif)$"}
    png = {"schema": {"type": "string", "format": "binary"}}
    return {
        "operationId": "result",
        "summary": "A finished picture; its name is all that is needed",
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": name}],
        "responses": {
            "200": {"description": "The picture.", "content": {"image/png": png}},
            "404": _failed_response("There is no such result."),
        },
    }


def _get_document() -> _Schema:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "openapi",
        "summary": "This document",
        "responses": {"200": {"description": "This document.", "content": content}},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer_schemas() -> _Schema:
    link = {"type": "string", "format": "uri", "description": "Where the picture is; needs no key."}
    identity = {
        "type": "string",
        "pattern": "^[0-9a-f]{32}$",
        "description": "Unique, unguessable.",
    }
    done = _object_schema(
        {"status": {"type": "integer", "enum": [200]}, "link": link, "id": identity},
        ["status", "link", "id"],
    )
    error = {"type": "string", "minLength": 1, "description": "One sentence."}
    status = {"type": "integer", "minimum": 400, "maximum": 599}
    failed = _object_schema({"status": status, "error": error}, ["status", "error"])
    closed = {"additionalProperties": False}
    return {"Done": {**done, **closed}, "Failed": {**failed, **closed}}


def _key_schemes() -> _Schema:
    header = {"type": "apiKey", "in": "header", "name": "WWW-Authenticate"}
    return {
        "bearer": {"type": "http", "scheme": "bearer"},
        "parameter": {"type": "apiKey", "in": "query", "name": "key"},
        "header": {**header, "description": "As in the original API."},
    }
