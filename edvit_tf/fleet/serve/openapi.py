"""What the HTTP interface says of itself: an OpenAPI document, and a page of it that needs nothing else."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from edvit_tf import __version__
from edvit_tf.fleet.serve.front import Bounds

Json = dict[str, Any]


def document(bounds: Bounds) -> Json:
    """The OpenAPI 3.1 document of an aggregator with these bounds."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edvit-tf aggregator",
            "version": __version__,
            "description": "Pictures classified by a Vision Transformer that is split over several devices.",
        },
        "paths": {
            "/v1/classify": {"post": _classify(bounds)},
            "/healthz": {
                "get": _get("Whether pictures can be answered", "application/json", _ref("Health"))
                | {"description": "Status 503 when no device answers or the aggregator is about to stop."}
            },
            "/metrics": {
                "get": _get("What is counted, for Prometheus", "text/plain", {"type": "string"}),
            },
            "/openapi.json": {"get": _get("This document", "application/json", {"type": "object"})},
            "/docs": {"get": _get("This document as a page", "text/html", {"type": "string"})},
        },
        "components": {"schemas": _SCHEMAS},
    }


def _classify(bounds: Bounds) -> Json:
    return {
        "summary": "Classify a picture",
        "description": (
            "The body is the picture's file as it is. The answer comes by the deadline from the devices that "
            "answered, and says which sub-models are missing and about which classes it is less sure."
        ),
        "parameters": [
            {
                "name": "deadline",
                "in": "query",
                "description": f"Seconds within which the answer has to come (default {bounds.deadline:g}).",
                "schema": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "maximum": bounds.longest_deadline,
                    "default": bounds.deadline,
                },
            }
        ],
        "requestBody": {
            "required": True,
            "description": f"At most {bounds.picture_bytes} bytes of PNG, JPEG, WebP, BMP, GIF, PPM or TIFF; "
            "for a bundle of sound, WAV or FLAC.",
            "content": {"application/octet-stream": {}, "image/*": {}, "audio/*": {}},
        },
        "responses": {
            "200": {
                "description": "The answer",
                "content": {"application/json": {"schema": _ref("Answer")}},
            },
            "400": _error("Not a picture, or a wrong deadline"),
            "408": _error("The picture did not arrive in time"),
            "413": _error("The picture is too large"),
            "415": _error("The body is a form or JSON instead of the picture"),
            "503": _error("Too many requests at once, or about to stop: try again"),
            "504": _error("No sub-model answered by the deadline"),
        },
    }


def _get(summary: str, media: str, schema: Json) -> Json:
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {media: {"schema": schema}}}},
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _error(description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": _ref("Error")}}}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_TEXTS: Json = {"type": "array", "items": _TEXT}
_MILLISECONDS: Json = {"type": "number", "minimum": 0}

_SCHEMAS: Json = {
    "Answer": _object(
        request_id=_TEXT,
        bundle=_TEXT,
        bundle_version=_COUNT,
        label=_TEXT,
        probabilities={
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1},
            "description": "In the order of the bundle's classes.",
        },
        complete={"type": "boolean"},
        answered=_COUNT,
        expected=_COUNT,
        missing=_TEXTS | {"description": "Sub-models that did not answer in time."},
        weak_classes=_TEXTS | {"description": "Labels that only missing sub-models know."},
        milliseconds=_MILLISECONDS,
        devices={"type": "array", "items": _ref("DevicePart")},
    ),
    "DevicePart": _object(
        device=_TEXT | {"description": "The device's id."},
        name=_TEXT,
        submodels=_TEXTS,
        milliseconds=_MILLISECONDS | {"description": "Until the device's answer came; 0 when none came."},
        interpreter_milliseconds=_MILLISECONDS,
        codec={"enum": ["", "raw", "jpeg", "webp"]}
        | {"description": "In which the picture went to the device; empty when it was not sent."},
        sent_bytes=_COUNT,
        received_bytes=_COUNT,
        error=_TEXT | {"description": "Why the device did not answer rightly, or empty."},
        code=_TEXT,
    ),
    "Health": _object(
        status={"enum": ["ok", "no device answers", "stopping"]}, devices_answering=_COUNT, devices=_COUNT
    ),
    "Error": _object(error=_object(code=_TEXT, message=_TEXT)),
}

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font-family:ui-monospace,monospace;background:#8881;padding:.1em .3em;border-radius:3px}"
    "pre{padding:.7em;overflow:auto}td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}"
)


def page(described: Mapping[str, Any]) -> str:
    """The document as HTML: no script, no style sheet and no font from elsewhere."""
    info = described["info"]
    title = f"{info['title']} {info['version']}"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1><p>{escape(info['description'])}</p>",
        "<p>For programs: <a href=openapi.json>openapi.json</a></p>",
        "<pre>curl --data-binary @picture.png http://127.0.0.1:8080/v1/classify</pre>",
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    parts.append("<h2>Schemas</h2>")
    for name, schema in described["components"]["schemas"].items():
        parts.append(f"<h3>{escape(name)}</h3><pre>{escape(json.dumps(schema, indent=2))}</pre>")
    return "".join(parts)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation['summary'])}</p>"
    if "description" in operation:
        yield f"<p>{escape(operation['description'])}</p>"
    yield "<table>"
    for parameter in operation.get("parameters", ()):
        yield f"<tr><th>?{escape(parameter['name'])}<td>{escape(parameter['description'])}"
    if "requestBody" in operation:
        yield f"<tr><th>body<td>{escape(operation['requestBody']['description'])}"
    for status, response in operation["responses"].items():
        yield f"<tr><th>{escape(status)}<td>{escape(response['description'])}"
    yield "</table>"
