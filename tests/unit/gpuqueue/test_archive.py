"""What has run, in ConfigMaps: everything once, whoever writes beside us, whatever is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from gpuqueue.cluster import archive
from gpuqueue.cluster.api import Api
from gpuqueue.cluster.archive import HISTORY, Archive
from gpuqueue.errors import Unavailable
from gpuqueue.history import Past
from http_server import answering, status

NOON = 1_795_262_400.0
DAY = 86400.0
MEBIBYTE = 2**20


class ConfigMaps:
    """ConfigMaps as the API server keeps them: compare-and-swap, a mebibyte each, lists in pages."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.lost_answers = 0
        """So many writes are done and their answers lost."""
        self.meanwhile: list[Callable[[], Awaitable[Any]]] = []
        """What happens after the next reads of one ConfigMap."""

    async def answer(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/api/v1/namespaces/gpu-queue/configmaps").strip("/")
        if request.method in ("POST", "PUT"):
            return self._write(await request.json(), new=request.method == "POST")
        if request.method == "DELETE":
            return web.json_response({}) if self.maps.pop(name, None) else status(404)
        if not name:
            rest = sorted(each for each in self.maps if each > request.query.get("continue", ""))
            following = rest[1] if rest[2:] else ""
            return web.json_response({"metadata": {"continue": following}, "items": [self.maps[each] for each in rest[:2]]})
        held = self.maps.get(name)
        if self.meanwhile:
            await self.meanwhile.pop(0)()
        return web.json_response(held) if held else status(404)

    def _write(self, body: dict[str, Any], *, new: bool) -> web.Response:
        name = body["metadata"]["name"]
        held = self.maps.get(name)
        if (held is not None) is new or (held and held["metadata"]["resourceVersion"] != body["metadata"].get("resourceVersion")):
            return status(409, "Conflict")
        if sum(len(text.encode()) for text in body["data"].values()) > MEBIBYTE:
            return status(422, "Invalid", "Too long: may not be more than 1048576 bytes")
        self.version += 1
        self.maps[name] = body | {"metadata": body["metadata"] | {"resourceVersion": str(self.version)}}
        if self.lost_answers:
            self.lost_answers -= 1
            return status(504, "Timeout")
        return web.json_response(self.maps[name])


def past(name: str, ended: float = NOON, family: str = "") -> Past:
    return Past(queue="q", lane="l4", namespace="team", name=name, family=family, gpus=1, since=ended - 20, at=ended - 10, ended=ended)


def play(story: Callable[[ConfigMaps, Callable[[], Archive]], Awaitable[None]]) -> None:
    async def main() -> None:
        maps = ConfigMaps()
        async with answering(maps.answer) as api:
            await story(maps, lambda: new(api))

    asyncio.run(main())


def new(api: Api, days: int = 30) -> Archive:
    return Archive(api, namespace="gpu-queue", days=days, clock=lambda: NOON)


def names(pasts: list[Past]) -> list[str]:
    return sorted(each.name for each in pasts)


def test_what_is_written_is_read_back_day_by_day() -> None:
    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        one = new()
        one.add([past("today"), past("yesterday", NOON - DAY), past("today-too")])
        assert await one.flush() == 3
        assert await one.flush() == 0
        assert [each.name for each in await new().load()] == ["yesterday", "today", "today-too"]
        assert {each["metadata"]["labels"][HISTORY] for each in maps.maps.values()} == {"2026-11-20", "2026-11-21"}

    play(story)


def test_a_full_configmap_is_followed_by_another() -> None:
    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        for number in range(4):
            one = new()
            one.add(past(f"{number}-{i}", family="f" * 500) for i in range(500))
            await one.flush()
        assert sorted(maps.maps) == ["gpu-queue-history-2026-11-21-0", "gpu-queue-history-2026-11-21-1"]
        assert len(set(names(await new().load()))) == 2000

    play(story)


def test_more_than_fits_into_one_is_written_in_several() -> None:
    """After an hour without an API server there is more to write than a ConfigMap holds: it must not be refused for ever."""

    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        one = new()
        one.add(past(f"{i:05}", family="f" * 500) for i in range(4000))
        assert await one.flush() == 4000
        assert len(maps.maps) >= 3
        assert len(set(names(await new().load()))) == 4000

    play(story)


def test_two_writers_lose_nothing() -> None:
    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        one, two = new(), new()
        one.add([past("one")])
        two.add([past("two")])
        maps.meanwhile = [two.flush]
        await one.flush()
        assert names(await new().load()) == ["one", "two"]
        one.add([past("one-more")])
        two.add([past("two-more")])
        maps.meanwhile = [two.flush]
        await one.flush()
        assert names(await new().load()) == ["one", "one-more", "two", "two-more"]

    play(story)


def test_an_answer_that_is_lost_writes_nothing_twice() -> None:
    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        one = new()
        one.add([past("a"), past("b")])
        maps.lost_answers = 1
        with pytest.raises(Unavailable):
            await one.flush()
        one.add([past("c")])
        await one.flush()
        assert names(await new().load()) == ["a", "b", "c"]

    play(story)


def test_what_cannot_be_written_stays_pending_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MOST_PENDING", 3)

    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        one = new()
        maps.lost_answers = 1
        one.add([past("a")])
        with pytest.raises(Unavailable):
            await one.flush()
        one.add([past("b"), past("c"), past("d")])
        await one.flush()
        assert names(await new().load()) == ["a", "b", "c", "d"]

    play(story)


def test_old_days_are_deleted_and_nothing_else() -> None:
    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        one = new()
        one.add(past(f"{days}", NOON - days * DAY) for days in (0, 29, 30, 31, 32, 40))
        await one.flush()
        await one.expire()
        assert names(await new().load()) == ["0", "29", "30"]

    play(story)


def test_a_line_that_cannot_be_read_costs_that_line() -> None:
    async def story(maps: ConfigMaps, new: Callable[[], Archive]) -> None:
        one = new()
        one.add([past("a"), past("b")])
        await one.flush()
        data = maps.maps["gpu-queue-history-2026-11-21-0"]["data"]
        data["pasts"] = "rubbish\n" + data["pasts"]
        maps.maps["empty"] = {"metadata": {"name": "empty", "labels": {HISTORY: "2026-11-21"}, "resourceVersion": "1"}}
        assert names(await new().load()) == ["a", "b"]

    play(story)
