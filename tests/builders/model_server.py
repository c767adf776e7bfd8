"""A model server of other make: grpc.aio and aiohttp, in a process of its own, that does what the request asks for.

It answers Predict with what it was given (input `x` as output `x`) and with its own version, so that a test can tell whether each answer belongs to its
request. Inputs steer it: `sleep` (seconds before the answer; a negative one: for ever), `status` (a gRPC code to end with), `bytes` (so many bytes more
in the answer). REST does the same with JSON. What it saw is told by GET /seen.

    python tests/builders/model_server.py --ready FILE [--version N] [--model NAME] [--host ADDRESS] [--grpc-port N] [--rest-port N] [--grace S]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web

from mlserving import wire

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Model:
    """What both protocols answer."""

    def __init__(self, name: str, version: int) -> None:
        self.name, self.versions = name, [version]
        self.seen: Counter[str] = Counter()
        self.metadata: list[dict[str, str]] = []

    @property
    def version(self) -> int:
        return self.versions[-1]

    async def predict(self, content: bytes, context: Any) -> bytes:
        request = wire.PredictRequest.FromString(content)
        self.seen["predict"] += 1
        self.metadata = [*self.metadata[-20:], {key: str(value) for key, value in context.invocation_metadata()}]
        try:
            await _wait(_number(request, "sleep"))
        except asyncio.CancelledError:
            self.seen["cancelled"] += 1
            raise
        if status := int(_number(request, "status")):
            await context.abort(_CODES[status], f"as asked: {status} – ü")
        await context.send_initial_metadata((("x-from", f"version-{self.version}"),))
        response = wire.PredictResponse()
        response.outputs["x"].CopyFrom(request.inputs["x"])
        if more := int(_number(request, "bytes")):
            response.outputs["more"].string_val.append(b"m" * more)
        response.model_spec.name = self.name
        response.model_spec.version.value = self.version
        content = response.SerializeToString()
        assert isinstance(content, bytes)
        return content

    async def status(self, content: bytes, _: Any) -> bytes:
        request = wire.GetModelStatusRequest.FromString(content)
        self.seen["status"] += 1
        response = wire.GetModelStatusResponse()
        response.model_version_status.add(version=request.model_spec.version.value or self.version, state=30)
        answer: bytes = response.SerializeToString()
        return answer

    async def rest(self, request: web.Request) -> web.Response:
        name, version = request.match_info["name"], int(request.match_info.get("version") or self.version)
        if name != self.name or version not in self.versions:
            return web.json_response({"error": f"no {name} {version}"}, status=404)
        body = await request.json()
        self.seen["rest"] += 1
        try:
            await _wait(float(body.get("sleep", 0)))
        except asyncio.CancelledError:
            self.seen["cancelled"] += 1
            raise
        answer = {
            "predictions": body.get("instances"),
            "version": version,
            "headers": dict(request.headers),
            "more": "m" * int(body.get("bytes", 0)),
        }
        return web.json_response(answer, status=int(body.get("status", 200)), headers={"X-From": f"version-{version}"})

    async def states(self, request: web.Request) -> web.Response:
        if request.match_info["name"] != self.name:
            return web.json_response({"error": "no such model"}, status=404)
        states = [
            {"version": str(each), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}} for each in self.versions
        ]
        return web.json_response({"model_version_status": states})

    async def signature(self, request: web.Request) -> web.Response:
        """One text in, one text out."""
        text = {"x": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}], "unknown_rank": False}, "name": "x:0"}}
        default = {"inputs": text, "outputs": text, "method_name": "tensorflow/serving/predict"}
        spec = {"name": self.name, "signature_name": "", "version": request.match_info["version"]}
        return web.json_response(
            {"model_spec": spec, "metadata": {"signature_def": {"signature_def": {"serving_default": default}}}},
        )

    async def told(self, _: web.Request) -> web.Response:
        return web.json_response({**self.seen, "metadata": self.metadata})

    async def now_serve(self, request: web.Request) -> web.Response:
        """Another version, as after a swap: the old one is gone at once."""
        self.versions = [int(request.match_info["version"])]
        return web.json_response({})


def _number(request: Any, name: str) -> float:
    return float(request.inputs[name].float_val[0]) if name in request.inputs else 0.0


async def _wait(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds if seconds > 0 else 3600)


async def serve(arguments: argparse.Namespace) -> None:
    model = Model(arguments.model, arguments.version)
    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))
    server = grpc.aio.server(options=options)
    handlers = {
        "PredictionService": {"Predict": model.predict, "Classify": model.predict, "Regress": model.predict},
        "ModelService": {"GetModelStatus": model.status},
    }
    server.add_generic_rpc_handlers(tuple(
        grpc.method_handlers_generic_handler(
            f"tensorflow.serving.{name}", {method: grpc.unary_unary_rpc_method_handler(answer) for method, answer in methods.items()}
        )
        for name, methods in handlers.items()
    ))  # fmt: skip
    grpc_port = server.add_insecure_port(f"{arguments.host}:{arguments.grpc_port}")
    await server.start()
    app = web.Application(client_max_size=64 * 2**20, handler_args={"auto_decompress": False})
    app.add_routes([
        web.post(r"/v1/models/{name}/versions/{version:\d+}:predict", model.rest), web.post("/v1/models/{name}:predict", model.rest),
        web.get("/v1/models/{name}", model.states), web.get(r"/v1/models/{name}/versions/{version:\d+}/metadata", model.signature), web.get("/seen", model.told), web.post(r"/serve/{version:\d+}", model.now_serve),
    ])  # fmt: skip
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=arguments.grace)
    await runner.setup()
    await web.TCPSite(runner, arguments.host, arguments.rest_port).start()
    temporary = arguments.ready.with_suffix(".tmp")
    temporary.write_text(json.dumps({"grpc": f"{arguments.host}:{grpc_port}", "rest": f"{arguments.host}:{runner.addresses[0][1]}"}))
    temporary.rename(arguments.ready)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await asyncio.gather(server.stop(arguments.grace), runner.cleanup())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--model", default="m")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--version", type=int, default=1)
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--rest-port", type=int, default=0)
    parser.add_argument("--grace", type=float, default=5.0)
    asyncio.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
