"""The REST client: TensorFlow Serving's JSON over the standard library's HTTP. It needs nothing else, so it starts at once."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from mlserving.client.ask import PredictRequest, PredictResponse, VersionStatus
from mlserving.client.signature import ModelSpec, Signature, Tensor, TensorSpec
from mlserving.errors import ConfigError, NotServed, ServingError, Unavailable

_NOT_FOUND = 404
_SERVER_FAULT = 500


class RestClient:
    """One connection to a server's REST port; one thread at a time."""

    def __init__(self, address: str, *, timeout: float = 30.0) -> None:
        self.address = address
        url = urlsplit(address if "://" in address else f"http://{address}")
        connection = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._prefix = url.path.rstrip("/")
        self._timeout = timeout
        self._known: dict[ModelSpec, dict[str, Signature]] = {}
        try:
            self._connection = connection(url.hostname or "", url.port, timeout=timeout)
        except (ValueError, http.client.InvalidURL) as error:
            raise ConfigError(f"{address!r} is no address: {error}. Write host:port, for example 127.0.0.1:8501.") from error

    def predict(self, request: PredictRequest) -> PredictResponse:
        """See `Client`. JSON tells neither types nor the name of a single output, so the signature is asked for once."""
        expected = self._outputs(request)
        body = {
            "signature_name": request.signature,
            "inputs": {name: _jsonable(tensor) for name, tensor in request.inputs.items()},
        }
        answer = self._call("POST", request.model, ":predict", body)["outputs"]
        if not isinstance(answer, dict) or answer.keys() == {"b64"}:
            answer = {next(iter(expected), "output"): answer}
        outputs = {
            name: _tensor(value, expected.get(name))
            for name, value in sorted(answer.items())
            if not request.outputs or name in request.outputs
        }
        return PredictResponse(outputs=outputs, version=request.model.version)

    def signatures(self, model: ModelSpec) -> dict[str, Signature]:
        """See `Client`."""
        signatures = signatures_in(self._call("GET", model, "/metadata"))
        self._known[model] = signatures
        return signatures

    def status(self, model: ModelSpec) -> list[VersionStatus]:
        """See `Client`."""
        return [
            VersionStatus(version=int(item["version"]), state=item["state"], error=item["status"].get("error_message", ""))
            for item in self._call("GET", model, "")["model_version_status"]
        ]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _outputs(self, request: PredictRequest) -> Mapping[str, TensorSpec]:
        signatures = self._known.get(request.model) or self.signatures(request.model)
        return signatures[request.signature].outputs if request.signature in signatures else {}

    def _call(self, method: str, model: ModelSpec, action: str, body: Any = None) -> Any:
        path = f"{self._prefix}/v1/models/{quote(model.name, safe='')}{_selector(model)}{action}"
        text = None if body is None else json.dumps(body)
        try:
            return self._exchange(method, path, text)
        except TimeoutError as error:
            raise Unavailable(f"The model server at {self.address} did not answer within {self._timeout:g} s. Try again.") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"No model server answers REST at {self.address} ({error}). Start one: millrace serve {model.name}"
            ) from error

    def _exchange(self, method: str, path: str, text: str | None) -> Any:
        """Send and receive. A kept connection that the server closed meanwhile is opened anew, once: asking twice does no harm."""
        kept = self._connection.sock is not None
        try:
            self._connection.request(method, path, text, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return _answer(response.status, response.read(), self.address)
        except (ConnectionError, http.client.BadStatusLine):
            self._connection.close()
            if not kept:
                raise
            return self._exchange(method, path, text)
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


def signatures_in(metadata: dict[str, Any]) -> dict[str, Signature]:
    """The signatures in a server's answer to `GET …/metadata`. Raises KeyError or TypeError where it is no such answer."""
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    return {
        name: Signature(name=name, method=item["method_name"], inputs=_specs(item["inputs"]), outputs=_specs(item["outputs"]))
        for name, item in sorted(definitions.items())
        if not name.startswith("__")  # the loader's own, not to be called
    }


def _answer(status: int, text: bytes, address: str) -> Any:
    try:
        answer = json.loads(text)
    except ValueError as error:
        if status >= _SERVER_FAULT:
            raise _translated(status, text.decode(errors="replace"), address) from error
        raise Unavailable(f"What answers at {address} is not a model server: it sent no JSON (HTTP {status}).") from error
    if isinstance(answer, dict) and "error" in answer and status >= http.client.BAD_REQUEST:
        raise _translated(status, str(answer["error"]), address)
    return answer


def _translated(status: int, text: str, address: str) -> ServingError:
    if status == _NOT_FOUND:
        return NotServed(text)
    if status < _SERVER_FAULT or status == http.client.NOT_IMPLEMENTED:
        return ConfigError(text)
    return Unavailable(f"The model server at {address} failed: HTTP {status}: {text}")


def _selector(model: ModelSpec) -> str:
    if model.version is not None:
        return f"/versions/{model.version}"
    return f"/labels/{quote(model.label, safe='')}" if model.label else ""


def _jsonable(tensor: Tensor) -> Any:
    if tensor.dtype != "DT_STRING":
        return tensor.nested()
    texts = tuple(_text_or_base64(value) for value in tensor.values)
    return Tensor(dtype=tensor.dtype, shape=tensor.shape, values=texts).nested()


def _text_or_base64(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _tensor(value: Any, expected: TensorSpec | None) -> Tensor:
    return Tensor.of(expected.dtype if expected else _guessed(value), _from_base64(value))


def _guessed(value: Any) -> str:
    while isinstance(value, list):
        value = value[0] if value else 0.0
    match value:
        case str() | dict():
            return "DT_STRING"
        case bool():
            return "DT_BOOL"
        case int():
            return "DT_INT64"
        case _:
            return "DT_FLOAT"


def _from_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_base64(element) for element in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def _specs(infos: dict[str, Any]) -> dict[str, TensorSpec]:
    return {name: _spec(name, info) for name, info in sorted(infos.items())}


def _spec(name: str, info: dict[str, Any]) -> TensorSpec:
    shape = info.get("tensor_shape", {})
    known = None if shape.get("unknown_rank") else tuple(int(dim["size"]) for dim in shape.get("dim", []))
    return TensorSpec(name=name, dtype=info["dtype"], shape=known)
