"""Who leads: one at a time, another soon after one is gone, and nobody who could not renew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gpuqueue.cluster.lease import Leadership
from http_server import answering, status, until

SECONDS = 0.4
"""For which a lease is held; the controller's own minimum is 2, which would make tests slow."""


class Leases:
    """One Lease as the API server keeps it: a write against an old version is refused."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.deaf: set[str] = set()
        """Identities whose requests fail."""

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("User-Agent") in self.deaf:
            return status(503, "ServiceUnavailable")
        if request.method == "GET":
            return web.json_response(self.lease) if self.lease else status(404, "NotFound")
        body = await request.json()
        said, held = body["metadata"].get("resourceVersion"), str(self.version) if self.lease else None
        if said != held:
            return status(409, "Conflict")
        self.version += 1
        self.lease = body | {"metadata": body["metadata"] | {"resourceVersion": str(self.version)}}
        return web.json_response(self.lease)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec


Story = Callable[[Leases, Callable[[str], Leadership]], Awaitable[None]]


def play(story: Story) -> None:
    """A story in which people with names take part in the choice; ends when it does."""

    async def main() -> None:
        leases, tasks = Leases(), []
        async with answering(leases.answer) as api:

            def join(identity: str) -> Leadership:
                one = Leadership(api, namespace="gpu-queue", name="gpu-queue", identity=identity, seconds=SECONDS)
                tasks.append(asyncio.create_task(one.run()))
                return one

            try:
                await story(leases, join)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_the_first_leads_and_the_second_knows_who_does() -> None:
    async def story(leases: Leases, join: Callable[[str], Leadership]) -> None:
        one = join("one")
        await until(lambda: one.leading)
        two = join("two")
        await until(lambda: two.holder == "one")
        version = leases.version
        await until(lambda: leases.version > version + 2)  # it is renewed
        assert one.leading
        assert not two.leading
        assert leases.spec["leaseTransitions"] == 0, "nobody led before"
        assert leases.spec["acquireTime"] < leases.spec["renewTime"]

    play(story)


def test_two_that_come_at_once_do_not_both_lead() -> None:
    async def story(leases: Leases, join: Callable[[str], Leadership]) -> None:
        both = [join("one"), join("two")]
        most = 0
        for _ in range(300):
            most = max(most, sum(each.leading for each in both))
            await asyncio.sleep(0.001)
        assert most == 1

    play(story)


def test_who_says_goodbye_is_followed_at_once() -> None:
    async def story(leases: Leases, join: Callable[[str], Leadership]) -> None:
        one = join("one")
        await until(lambda: one.leading)
        await one.release()
        assert not one.leading
        assert leases.spec["holderIdentity"] == ""
        two = join("two")
        await until(lambda: one.leading or two.leading, SECONDS)

    play(story)


def test_who_cannot_renew_stops_leading_before_another_may_take_over() -> None:
    async def story(leases: Leases, join: Callable[[str], Leadership]) -> None:
        one = join("one")
        await until(lambda: one.leading)
        leases.deaf.add("gpuq")
        began = asyncio.get_running_loop().time()
        await until(lambda: not one.leading)
        assert asyncio.get_running_loop().time() - began < SECONDS
        await until(lambda: "503" in one.trouble)
        leases.deaf.clear()
        await until(lambda: one.leading)
        assert one.trouble == ""

    play(story)


def test_who_vanishes_without_a_word_is_followed_once_the_lease_is_over_by_the_clock_of_whoever_waits() -> None:
    async def story(leases: Leases, join: Callable[[str], Leadership]) -> None:
        gone = {"holderIdentity": "gone", "leaseDurationSeconds": 1, "renewTime": "2099-01-01T00:00:00.000000Z", "leaseTransitions": 6}
        leases.version, leases.lease = 1, {"metadata": {"resourceVersion": "1"}, "spec": gone}
        began = asyncio.get_running_loop().time()
        two = join("two")
        await until(lambda: two.leading)
        assert asyncio.get_running_loop().time() - began >= 1
        assert leases.spec["leaseTransitions"] == 7

    play(story)


def test_a_lease_that_holds_nothing_is_free() -> None:
    async def story(leases: Leases, join: Callable[[str], Leadership]) -> None:
        leases.version, leases.lease = 1, json.loads('{"metadata": {"resourceVersion": "1"}, "spec": {}}')
        one = join("one")
        await until(lambda: one.leading)

    play(story)
