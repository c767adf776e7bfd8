"""Staying up to date, whatever happens to a watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from aiohttp import web

from gpuqueue.cluster import watch
from gpuqueue.cluster.watch import Follower
from http_server import answering, status, until

Step = Callable[[web.StreamResponse], Awaitable[None]]


class Server:
    """A collection, as it is listed; and what the next watches say. A watch beyond those stays open and says nothing."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.version = 10
        self.watches: list[Step | int] = []
        self.lists = 0
        self.since: list[str] = []
        self.refused = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            if self.refused:
                return status(self.refused, "Refused")
            items = [thing(name, version) for name, version in self.items.items()]
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        self.since.append(request.query["resourceVersion"])
        step = self.watches.pop(0) if self.watches else silence
        if isinstance(step, int):
            return status(step, "Expired")
        answer = web.StreamResponse()
        await answer.prepare(request)
        with suppress(ConnectionError):
            await step(answer)
        return answer


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"uid": name, "resourceVersion": str(version)}}


def says(*lines: object, cut: bool = False) -> Step:
    """Events, one a line; then the watch ends, or the connection breaks in the middle of a line."""

    async def step(answer: web.StreamResponse) -> None:
        for line in lines:
            await answer.write((line if isinstance(line, str) else json.dumps(line)).encode() + b"\n")
        if cut:
            await answer.write(b'{"type": "ADD')
            raise ConnectionResetError

    return step


async def silence(_answer: web.StreamResponse) -> None:
    await asyncio.Event().wait()


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": thing(name, version)}


def error(code: int) -> dict[str, Any]:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "no"}}


def bookmark(version: int) -> dict[str, Any]:
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}


class Held:
    """What is told: name -> version."""

    def __init__(self) -> None:
        self.things: dict[str, str] = {}

    def replace(self, things: Mapping[str, str]) -> int:
        differing = len(dict(self.things.items() ^ things.items()))
        self.things = dict(things)
        return differing

    def put(self, thing: str) -> None:
        name, _, version = thing.partition("@")
        self.things[name] = version

    def drop(self, thing: str) -> None:
        self.things.pop(thing.partition("@")[0], None)


class _Object(msgspec.Struct):
    metadata: dict[str, str]


def read(item: msgspec.Raw) -> tuple[str, str, str]:
    found = msgspec.json.decode(item, type=_Object).metadata
    return found["uid"], found["resourceVersion"], f"{found['uid']}@{found['resourceVersion']}"


class Followed:
    def __init__(self, server: Server, follower: Follower[str], held: Held, troubles: list[str]) -> None:
        self.server, self.follower, self.held, self.troubles = server, follower, held, troubles

    async def knows(self, *names: str) -> None:
        await until(lambda: self.follower.synced and sorted(self.held.things) == sorted(names))


def play(server: Server, story: Callable[[Followed], Awaitable[None]]) -> None:
    async def main() -> None:
        held, troubles = Held(), []  # type: ignore[var-annotated]
        async with answering(server.answer) as api:
            follower = Follower(api, "/apis/things", read=read, sink=held, trouble=troubles.append)
            task = asyncio.create_task(follower.run())
            try:
                await story(Followed(server, follower, held, troubles))
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are waited out in no time."""

    async def backoff(attempt: int) -> None:
        await asyncio.sleep(0.001 * (attempt + 1))

    monkeypatch.setattr(watch, "backoff", backoff)


def test_what_is_listed_then_added_changed_and_deleted_is_known() -> None:
    server = Server()
    server.items = {"a": 3, "b": 4}
    server.watches = [says(event("ADDED", "c", 11), event("MODIFIED", "a", 12), event("DELETED", "b", 13))]

    async def story(one: Followed) -> None:
        await one.knows("a", "c")
        assert one.held.things == {"a": "12", "c": "11"}
        await until(lambda: server.since == ["10", "13"])
        assert server.lists == 1

    play(server, story)


def test_a_watch_that_ends_or_breaks_goes_on_where_it_stopped() -> None:
    server = Server()
    server.watches = [says(event("ADDED", "a", 11)), says(event("ADDED", "b", 12), cut=True), says(bookmark(40)), says()]

    async def story(one: Followed) -> None:
        await one.knows("a", "b")
        await until(lambda: server.since == ["10", "11", "12", "40", "40"])
        assert server.lists == 1

    play(server, story)


@pytest.mark.parametrize("step", [says(error(410)), 410], ids=["an event", "an answer"])
def test_too_old_a_past_is_no_trouble_and_lists_anew(step: Step | int) -> None:
    server = Server()
    server.items, server.watches = {"a": 3}, [step]

    async def story(one: Followed) -> None:
        await until(lambda: server.lists == 2)
        await until(lambda: len(server.since) == 2)
        assert one.troubles == []

    play(server, story)


def test_a_server_that_is_never_satisfied_is_not_asked_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that is not installed is 404, and too old a past 410: both were asked again at once, for ever."""
    pauses: list[int] = []

    async def backoff(attempt: int) -> None:
        pauses.append(attempt)
        await asyncio.sleep(0.001)

    monkeypatch.setattr(watch, "backoff", backoff)
    server = Server()
    server.refused = 404

    async def missing(one: Followed) -> None:
        await until(lambda: len(pauses) >= 5)
        assert pauses[:5] == [0, 1, 2, 3, 4], "longer each time"
        assert server.lists <= len(pauses) + 1
        assert "404" in one.troubles[0]
        server.refused = 0
        await until(lambda: one.follower.synced)

    play(server, missing)
    pauses.clear()
    server.watches = [410] * 5
    play(server, lambda _: until(lambda: pauses[:5] == [0, 1, 2, 3, 4]))


def test_another_error_in_a_watch_is_told_and_the_watch_goes_on() -> None:
    server = Server()
    server.watches = [says(event("ADDED", "a", 11), error(500)), says(event("ADDED", "b", 12))]

    async def story(one: Followed) -> None:
        await one.knows("a", "b")
        assert server.lists == 1
        assert "was ended: no" in one.troubles[0]

    play(server, story)


def test_a_connection_that_says_nothing_counts_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENCE", 0.05)
    server = Server()

    async def story(one: Followed) -> None:
        await until(lambda: len(server.since) >= 3)
        assert server.since[:3] == ["10", "10", "10"]
        assert "broke" in one.troubles[0]

    play(server, story)


@pytest.mark.parametrize("line", ["{", "null", "[]", '{"type": 5, "object": {}}', '{"type": "ADDED"}', "\x00"])
def test_a_line_that_is_no_event_is_told_and_survived(line: str) -> None:
    server = Server()
    server.watches = [says(event("ADDED", "a", 11), line), says(event("ADDED", "b", 12))]

    async def story(one: Followed) -> None:
        await one.knows("a", "b")
        assert one.troubles

    play(server, story)


def test_an_object_that_cannot_be_read_is_left_out_alone() -> None:
    server = Server()
    server.watches = [says({"type": "ADDED", "object": {"metadata": 5}}, event("ADDED", "b", 12))]

    async def story(one: Followed) -> None:
        await one.knows("b")
        assert "left out an object" in one.troubles[0]

    play(server, story)


def test_a_very_long_line_is_one_event() -> None:
    server = Server()
    long = event("ADDED", "a", 11)
    long["object"]["metadata"]["note"] = "x" * 3_000_000
    server.watches = [says(long)]
    play(server, lambda one: one.knows("a"))


def test_the_list_is_taken_again_now_and_then_and_what_it_corrects_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.0)
    server = Server()
    server.watches = [says(), says()]
    server.items = {"a": 1}

    async def story(one: Followed) -> None:
        await one.knows("a")
        server.items = {"b": 2}
        await one.knows("b")
        assert one.follower.corrected == 2

    server.watches = [says(bookmark(11))] * 50
    play(server, story)
