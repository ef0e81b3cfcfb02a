"""The API described for programs: OpenAPI 3.0."""

from __future__ import annotations

from typing import Any

from napari_pixseg import __version__
from napari_pixseg.endpoint.request_parameters import FALSE, TRUE
from napari_pixseg.parameters import MAX_SMOOTHING, ColorSpace, Parameters

_REASONS = {
    400: "A parameter is missing, out of range or not of its kind, or img is not to be fetched.",
    401: "The key is missing or wrong.",
    404: "There is nothing at img, or it cannot be reached.",
    413: "The image has too many bytes, pixels or planes.",
    415: "The request is neither a form nor JSON, or the image is none, or of another format.",
    422: "No class reaches ct, or there are too many.",
    500: "Something unforeseen.",
    503: "The queue is full.",
    507: "The server has no space.",
}


def document(needs_key: bool) -> dict[str, Any]:
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
            "/segment": {"get": _get(needs_key), "post": _post(needs_key)},
            "/results/{name}": {"get": _result()},
            "/openapi.json": {"get": _self()},
        },
        "components": {"schemas": _schemas(), "securitySchemes": _schemes() if needs_key else {}},
    }


def _get(needs_key: bool) -> dict[str, Any]:
    url = {"name": "img", "in": "query", "required": True, "schema": _url()}
    others = [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in _knobs(text=True).items()
    ]
    return _operation(
        "segmentUrl", "Segment the image at a URL", needs_key, parameters=[url, *others]
    )


def _post(needs_key: bool) -> dict[str, Any]:
    upload = {"type": "string", "format": "binary", "description": "The image, as a file."}
    key = {"key": {"type": "string", "writeOnly": True}}
    content = {
        "multipart/form-data": {
            "schema": _object({"img": upload, **_knobs(text=True), **key}, ["img"]),
        },
        "application/json": {
            "schema": _object({"img": _url(), **_knobs(text=False), **key}, ["img"]),
        },
    }
    body = {"required": True, "content": content}
    return _operation("segment", "Segment an uploaded image", needs_key, requestBody=body)


def _operation(name: str, summary: str, needs_key: bool, **parts: Any) -> dict[str, Any]:
    ways: dict[str, Any] = {"security": [{way: []} for way in _schemes()]} if needs_key else {}
    return {"operationId": name, "summary": summary, **parts, "responses": _responses(), **ways}


def _url() -> dict[str, Any]:
    return {"type": "string", "format": "uri", "description": "http or https, a public address."}


def _knobs(text: bool) -> dict[str, Any]:
    usual = Parameters()
    switch = {"type": "string", "enum": [*TRUE, *FALSE]} if text else {"type": "boolean"}
    return {
        "ct": {
            "type": "number", "minimum": 0, "maximum": 100, "default": usual.ct,
            "description": "Cluster threshold: smallest share of a class, in percent.",
        },
        "cs": {
            "type": "integer", "minimum": 1, "maximum": len(ColorSpace), "default": int(usual.cs),
            "description": ", ".join(f"{int(space)} {space.name}" for space in ColorSpace),
        },
        "st": {
            "type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": MAX_SMOOTHING,
            "default": usual.st, "description": "Smoothing threshold.",
        },
        "blob": {**switch, "description": "Whether the answer is the picture itself."},
    }  # fmt: skip


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _responses() -> dict[str, Any]:
    png = {"schema": {"type": "string", "format": "binary"}}
    done = {
        "description": "Done: where the picture is, or with blob the picture.",
        "content": {"application/json": {"schema": _reference("Done")}, "image/png": png},
    }
    failed = {str(status): _failed(text) for status, text in _REASONS.items()}
    header = {"required": True, "schema": {"type": "string"}}
    failed["401"]["headers"] = {"WWW-Authenticate": header}
    failed["503"]["headers"] = {"Retry-After": header}
    return {"200": done, **failed}


def _failed(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": _reference("Failed")}},
    }


def _result() -> dict[str, Any]:
    name = {"type": "string", "pattern": r"^[0-9a-f]{32}\.png$"}
    png = {"schema": {"type": "string", "format": "binary"}}
    return {
        "operationId": "result",
        "summary": "A finished picture; its name is all that is asked for",
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": name}],
        "responses": {
            "200": {"description": "The picture.", "content": {"image/png": png}},
            "404": _failed("There is no such result."),
        },
    }


def _self() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "openapi",
        "summary": "This document",
        "responses": {"200": {"description": "This document.", "content": content}},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    link = {"type": "string", "format": "uri", "description": "Where the picture is; needs no key."}
    identity = {
        "type": "string",
        "pattern": "^[0-9a-f]{32}$",
        "description": "Unique, unguessable.",
    }
    done = _object(
        {"status": {"type": "integer", "enum": [200]}, "link": link, "id": identity},
        ["status", "link", "id"],
    )
    error = {"type": "string", "minLength": 1, "description": "One sentence."}
    status = {"type": "integer", "minimum": 400, "maximum": 599}
    failed = _object({"status": status, "error": error}, ["status", "error"])
    return {name: {**schema, "additionalProperties": False}
            for name, schema in {"Done": done, "Failed": failed}.items()}  # fmt: skip


def _schemes() -> dict[str, Any]:
    header = {"type": "apiKey", "in": "header", "name": "WWW-Authenticate"}
    return {
        "bearer": {"type": "http", "scheme": "bearer"},
        "parameter": {"type": "apiKey", "in": "query", "name": "key"},
        "header": {**header, "description": "As the original API has it."},
    }
