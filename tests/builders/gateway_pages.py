"""The metrics page of a gateway, as far as a rollout reads it, behind a real HTTP server: a test says what was answered."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

WHO = ("model", "track", "version", "protocol")


class Page:
    """What a gateway has counted since it began."""

    def __init__(self) -> None:
        self.starts = 0
        self.begin()

    def begin(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.starts += 1
        Gauge("process_start_time_seconds", "", registry=registry).set(1_700_000_000.5 + self.starts)
        self.requests = Counter("millrace_gateway_requests", "", (*WHO, "code"), registry=registry)
        self.seconds = Histogram("millrace_gateway_request_seconds", "", WHO, buckets=(0.01, 0.1, 1), registry=registry)
        self.classes = Counter("millrace_prediction_class", "", ("model", "track", "version", "class"), registry=registry)
        self.fallbacks = Counter("millrace_gateway_fallbacks", "", ("model", "track"), registry=registry)
        self.endpoints = Gauge("millrace_gateway_endpoint_up", "", ("model", "track", "endpoint", "version"), registry=registry)

    def reach(self, up: float, *, track: str = "canary", version: int = 2, endpoint: str = "10.0.0.1:8500") -> None:
        self.endpoints.labels("demo", track, endpoint, str(version)).set(up)

    def answer(self, count: int, *, track: str = "canary", version: int = 2, code: str = "OK", model: str = "demo") -> None:
        self.requests.labels(model, track, version, "grpc", code).inc(count)
        for _ in range(count):
            self.seconds.labels(model, track, version, "grpc").observe(0.05)
        self.classes.labels(model, track, version, "travel").inc(count)


@contextmanager
def serving(page: Page) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = generate_latest(page.registry)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
