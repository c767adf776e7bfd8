"""Real scrapes: of an exporter as dcgm-exporter is scraped by default, and of the controller's own page."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gpuqueue.metrics import Metrics
from gpuqueue.prometheus import Prometheus, Source
from gpuqueue.usage import Sample
from prometheus_server import PrometheusServer
from waiting import eventually

pytestmark = pytest.mark.prometheus


@contextmanager
def exporter(page: Callable[[], bytes]) -> Iterator[str]:
    """Serves `page()`; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = page()
            self.send_response(200 if text else 503)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def scrape(address: str, **labels: str) -> dict[str, Any]:
    static = [{"targets": [address], "labels": labels}]
    return {"job_name": "test", "scrape_interval": "200ms", "scrape_timeout": "200ms", "static_configs": static}


@pytest.mark.slow
def test_pods_that_an_exporter_names_are_found_and_lost_with_it(tmp_path: Path) -> None:
    activity: dict[str, float | None] = {"now": 0.75}

    def page() -> bytes:
        value = activity["now"]
        held = 'UUID="GPU-1",gpu="0",namespace="fraud",pod="train",container="main"'
        return b"" if value is None else f"DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{held}}} {value}\n".encode()

    with exporter(page) as address, PrometheusServer(tmp_path, scrape=[scrape(address, namespace="gpu-operator", pod="dcgm-x")]) as server:
        source = Source(url=server.url, resolution=1)

        def seen() -> Sample | None:
            async def asked() -> Sample | None:
                async with aiohttp.ClientSession() as session:
                    return (await Prometheus(session, source).activity("gr_engine_active", 3, time.time())).get(("fraud", "train"))

            return asyncio.run(asked())

        busy = eventually("a full window", lambda: (sample := seen()) is not None and sample.share == 1 and sample)
        assert (busy.mean, busy.highest, busy.gpus) == (pytest.approx(0.75), 0.75, 1)
        activity["now"] = 0.0
        eventually("a window without work", lambda: (sample := seen()) is not None and sample.highest == 0)
        activity["now"] = None
        eventually("a hole", lambda: (sample := seen()) is not None and sample.share < 1)
        eventually("nothing left", lambda: seen() is None)


def test_prometheus_reads_the_controllers_page(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.leader.set(1)
    metrics.replace(metrics.granted_gpus, {("fraud", "l4"): 3})

    with exporter(metrics.page) as address, PrometheusServer(tmp_path, scrape=[scrape(address)]) as server:

        def value(query: str) -> list[str]:
            with urllib.request.urlopen(f"{server.url}/api/v1/query?query={urllib.parse.quote(query)}", timeout=10) as answer:
                return [row["value"][1] for row in json.load(answer)["data"]["result"]]

        eventually("the leader", lambda: value("max(gpuqueue_leader)") == ["1"])
        assert value('gpuqueue_granted_gpus{queue="fraud",lane="l4"}') == ["3"]
        metrics.stand_down()
        eventually("silence about queues", lambda: value("gpuqueue_granted_gpus") == [])
