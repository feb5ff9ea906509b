"""HTTP: `POST /v1/classify` with a picture's bytes, and what a machine wants to know of the aggregator."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from edvit_tf.errors import BusyError, DataError, DeadlineError, EdvitError, UsageError
from edvit_tf.fleet.serve.front import Front
from edvit_tf.fleet.serve.openapi import document, page

# A picture must arrive within this time, or its sender keeps a place that others wait for.
BODY_SECONDS = 10.0
# What a page of another site could send us under a name of its own is refused.
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
}
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

Endpoint = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)


def http_application(front: Front, *, loopback: bool) -> Starlette:
    """The application; with `loopback` only requests that name this machine as loopback are answered."""
    described = document(front.bounds)

    async def classify(request: Request) -> Response:
        with front.admitted("http") as admitted:
            _check_type(request)
            deadline = _deadline(request)
            body = await _body(request, front.bounds.picture_bytes)
            result = await front.classify(admitted, body, deadline)
        said = result.to_json()
        log.info(
            "answered",
            extra={
                "fields": {
                    "request_id": admitted.id,
                    "label": result.answer.label,
                    "answered": result.answer.answered,
                    "expected": result.answer.expected,
                    "milliseconds": round(result.answer.milliseconds, 3),
                }
            },
        )
        return JSONResponse(said, headers={"X-Request-Id": admitted.id})

    async def health(_: Request) -> Response:
        known = [member.asked is not None for member in front.aggregator.members.values()]
        well = any(known) and not front.stopping
        status = "stopping" if front.stopping else "ok" if well else "no device answers"
        content = {"status": status, "devices_answering": sum(known), "devices": len(known)}
        return JSONResponse(content, 200 if well else 503)

    async def metrics(_: Request) -> Response:
        return Response(front.metrics.text(), media_type=_PROMETHEUS)

    async def openapi(_: Request) -> Response:
        return JSONResponse(described)

    async def docs(_: Request) -> Response:
        return HTMLResponse(page(described), headers=_PAGE_HEADERS)

    return Starlette(
        routes=[
            Route("/v1/classify", _careful(classify), methods=["POST"]),
            Route("/healthz", health),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
            Route("/docs", docs),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES)] if loopback else [],
    )


def _careful(endpoint: Endpoint) -> Endpoint:
    """Turn our errors into JSON with the right status."""

    async def careful(request: Request) -> Response:
        try:
            return await endpoint(request)
        except EdvitError as error:
            status = _status(error)
            log.info("refused", extra={"fields": {"status": status, "code": error.code}})
            content = {"error": {"code": error.code, "message": error.message}}
            return JSONResponse(content, status, {"Retry-After": "1"} if status == 503 else None)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    return careful


_STATUS_BY_CODE = {"http.type": 415, "http.size": 413, "http.slow": 408}


def _status(error: EdvitError) -> int:
    match error:
        case _ if error.code in _STATUS_BY_CODE:
            return _STATUS_BY_CODE[error.code]
        case UsageError() | DataError():
            return 400
        case BusyError():
            return 503
        case DeadlineError():
            return 504
        case _:
            return 500


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/") or kind == "application/json":
        raise UsageError(
            "send the bytes of the picture's file as the body, as `curl --data-binary @picture.png` does, "
            f"not {kind[:40]}",
            code="http.type",
        )


def _deadline(request: Request) -> float | None:
    given = request.query_params.get("deadline")
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        raise UsageError("deadline must be a number of seconds, for example ?deadline=0.5") from None


async def _body(request: Request, most: int) -> bytes:
    too_large = UsageError(
        f"the picture has more than {most} bytes: send a smaller one, or start the aggregator with a larger "
        "--picture-mb",
        code="http.size",
    )
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                data += piece
                if len(data) > most:
                    raise too_large
    except TimeoutError:
        raise UsageError(
            f"the picture did not arrive within {BODY_SECONDS:.0f} s", code="http.slow"
        ) from None
    if not data:
        raise DataError("the body is empty: send the bytes of a picture's file")
    return bytes(data)
