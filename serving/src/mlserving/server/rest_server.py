"""TensorFlow Serving's REST API over the library, as one ASGI application.

`POST /v1/models/M[/versions/V|/labels/L]:predict` (and `:classify`, `:regress`), `GET …` for the status and `GET …/metadata`. The
path has so little grammar that one regular expression is the router. An error is `{"error": "…"}` with TensorFlow Serving's status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import json_format
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlserving.client.signature import ModelSpec
from mlserving.server import answers, examples, rest_json
from mlserving.server.answer_errors import HTTP_STATUS, RequestError, invalid
from mlserving.server.grpc_server import signature_map, status_message
from mlserving.server.library import Library

App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?::(?P<verb>\w+)|(?P<metadata>/metadata))?"
)


def build_app(library: Library) -> App:
    """The application. Answers are computed in threads, so a slow model does not hold up the others."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        status, answer = await run_in_threadpool(_respond, library, request.method, scope["path"], body)
        response = Response(answer, status, media_type="application/json")
        await response(scope, receive, send)

    return app


def _respond(library: Library, method: str, path: str, body: bytes) -> tuple[int, str]:
    try:
        return 200, json.dumps(_answer(library, method, path, body), ensure_ascii=False)
    except RequestError as error:
        return HTTP_STATUS[error.code], json.dumps({"error": str(error)}, ensure_ascii=False)


def _answer(library: Library, method: str, path: str, body: bytes) -> dict[str, Any]:
    match = _PATH.fullmatch(path)
    if match:
        spec = ModelSpec(name=match["name"], version=int(match["version"]) if match["version"] else None, label=match["label"])
        if method == "POST" and match["verb"] in _VERBS:
            return _VERBS[match["verb"]](library, spec, rest_json.parse_body(body))
        if method == "GET" and match["metadata"]:
            return _metadata(library, spec)
        if method == "GET" and not match["verb"]:
            return _as_json(status_message(library, spec))
    raise invalid(
        f"Malformed request: {method} {path}. Expected GET /v1/models/NAME[/versions/N|/labels/L][/metadata]"
        " or POST /v1/models/NAME[/versions/N|/labels/L]:predict (or :classify, :regress)."
    )


def _predict(library: Library, spec: ModelSpec, request: dict[str, Any]) -> dict[str, Any]:
    with library.borrowed(spec) as servable:
        signature = servable.signature(_signature_name(request))
        call = rest_json.predict_call(request, signature)
        outputs = servable.run(signature, call.feeds)
    return rest_json.predict_response(outputs, call.layout)


def _classify(library: Library, spec: ModelSpec, request: dict[str, Any]) -> dict[str, Any]:
    sent = examples.from_json(request)
    with library.borrowed(spec) as servable:
        return {"results": answers.classify(servable, _signature_name(request), sent)}


def _regress(library: Library, spec: ModelSpec, request: dict[str, Any]) -> dict[str, Any]:
    sent = examples.from_json(request)
    with library.borrowed(spec) as servable:
        return {"results": answers.regress(servable, _signature_name(request), sent)}


_VERBS: dict[str | None, Callable[[Library, ModelSpec, dict[str, Any]], dict[str, Any]]] = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
}


def _metadata(library: Library, spec: ModelSpec) -> dict[str, Any]:
    with library.borrowed(spec) as servable:
        signatures = _as_json(signature_map(servable))
        return {
            "model_spec": {"name": servable.model, "signature_name": "", "version": str(servable.version)},
            "metadata": {"signature_def": signatures},
        }


def _signature_name(request: dict[str, Any]) -> str:
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' must be a string.")
    return name


def _as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
