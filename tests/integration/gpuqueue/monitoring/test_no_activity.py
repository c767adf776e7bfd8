"""When whoever should know about GPU activity does not answer, or answers something else: unknown, never a crash."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gpuqueue.errors import ConfigError, Unavailable
from gpuqueue.prometheus import PodKey, Prometheus, Source, activity_query
from gpuqueue.usage import Sample


@dataclass
class Server:
    """Answers every question alike, and remembers what it was asked."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append({name: str(value) for name, value in (await request.post()).items()})
        self.tokens.append(request.headers.get("Authorization"))
        if self.silent:
            await asyncio.sleep(60)
        return web.Response(body=self.body, status=self.status, headers=self.headers)


def ask(server: Server, times: int = 1, **settings: Any) -> dict[PodKey, Sample]:
    """The last answer."""

    async def asked() -> dict[PodKey, Sample]:
        app = web.Application()
        app.router.add_post("/prom/api/v1/query", server.answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        source = replace(Source(url=f"http://127.0.0.1:{runner.addresses[0][1]}/prom/", deadline=5), **settings)
        try:
            async with aiohttp.ClientSession() as session:
                return [await Prometheus(session, source).activity("gr_engine_active", 600, 1000.5) for _ in range(times)][-1]
        finally:
            await runner.cleanup()

    return asyncio.run(asked())


def vector(*rows: tuple[str, str, str]) -> bytes:
    """An answer with rows of (pod, figure, value)."""
    result = [
        {"metric": {"exported_namespace": "fraud", "exported_pod": pod, "figure": figure}, "value": [1000.5, value]}
        for pod, figure, value in rows
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, "warnings": ["partial"]}).encode()


def figures(pod: str, **different: str) -> list[tuple[str, str, str]]:
    return [(pod, figure, value) for figure, value in {"mean": "0.5", "highest": "1", "share": "1", "gpus": "2", **different}.items()]


def test_a_whole_answer_becomes_a_sample_of_the_moment_that_was_asked() -> None:
    server = Server(vector(*figures("train")))
    assert ask(server) == {("fraud", "train"): Sample(at=1000.5, window=600, mean=0.5, highest=1, share=1, gpus=2)}
    assert server.asked[0]["time"] == "1000.500"
    assert server.tokens == [None]


@pytest.mark.parametrize("missing", ["mean", "highest", "share", "gpus"])
def test_a_pod_of_which_a_figure_is_missing_or_no_number_is_left_out(missing: str) -> None:
    rows = [*figures("whole"), *(row for row in figures("partly") if row[1] != missing), *figures("nan", **{missing: "NaN"})]
    rows += figures("words", **{missing: "many"}) + figures("endless", **{missing: "+Inf"})
    assert set(ask(Server(vector(*rows)))) == {("fraud", "whole")}


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Server(b"<html>login</html>"), "HTTP 200, which is no answer of the query API"),
        (Server(b"\xff\xfe", status=502), "HTTP 502"),
        (Server(b"{}"), "no answer of the query API"),
        (Server(b'{"status": "success"}'), "success"),
        (Server(b'{"status":"error","errorType":"timeout","error":"query timed out"}', status=503), "HTTP 503, query timed out"),
        (Server(b'{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}'), "a scalar instead of a vector"),
        (Server(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1]}]}}'), "no answer of the query API"),
        (Server(b'{"status":"success","data":{"resultType":"vector","result":{"a":1}}}'), "no answer of the query API"),
        (Server(b"", status=302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
    ],
    ids=["html", "no text", "empty", "no data", "error", "scalar", "short value", "object", "redirect"],
)
def test_an_answer_that_is_none_is_unavailable_and_says_why(server: Server, why: str) -> None:
    with pytest.raises(Unavailable) as error:
        ask(server)
    assert why in str(error.value)
    assert str(error.value).endswith("To look: gpuq doctor")


def test_who_does_not_answer_in_time_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        ask(Server(silent=True), deadline=0.2)


def test_who_is_not_there_is_unavailable() -> None:
    async def asked() -> None:
        async with aiohttp.ClientSession() as session:
            await Prometheus(session, Source(url="http://127.0.0.1:1")).activity("gr_engine_active", 600, 0)

    with pytest.raises(Unavailable, match="Connect call failed"):
        asyncio.run(asked())


def test_the_token_is_read_for_every_question(tmp_path: Path) -> None:
    token = tmp_path / "token"

    class Renewing(Server):
        async def answer(self, request: web.Request) -> web.Response:
            token.write_text("second")
            return await super().answer(request)

    token.write_text("first\n")
    server = Renewing(vector())
    ask(server, times=2, token_file=token)
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_a_token_that_cannot_be_read_is_unavailable_and_nothing_is_asked(tmp_path: Path) -> None:
    server = Server(vector())
    with pytest.raises(Unavailable, match="No such file"):
        ask(server, token_file=tmp_path / "token")
    assert server.asked == []


def test_a_label_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="'pod\\) or vector\\(1' is no name of a Prometheus label"):
        Source(url="", pod_label="pod) or vector(1")


def test_windows_are_rounded_up_to_whole_steps() -> None:
    assert "[360s:120s]" in activity_query("gr_engine_active", 241, Source(url=""))
