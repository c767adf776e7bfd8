"""What is written on pods, and what becomes of what could not be written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from gpuqueue.controller.messenger import Budget, Messenger
from gpuqueue.telling import Note
from http_server import answering, status


class Mail:
    """Takes what is written, or refuses."""

    def __init__(self) -> None:
        self.refusal = 0
        self.conditions: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.asked = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.refusal:
            return status(self.refusal, "No")
        body = await request.json()
        if request.path.endswith("/status"):
            self.conditions += body["status"]["conditions"]
        else:
            self.events.append(body)
        return web.json_response({})


def play(story: Callable[[Mail, Messenger], Awaitable[None]], *, budget: float = 1000.0, surface: bool = True) -> list[str]:
    """Returns the troubles."""
    troubles: list[str] = []

    async def main() -> None:
        mail = Mail()
        async with answering(mail.answer) as api:
            messenger = Messenger(
                api,
                identity="replica",
                budget=Budget(budget),
                top=20,
                surface=surface,
                events=True,
                told=lambda _: None,
                trouble=troubles.append,
            )
            await story(mail, messenger)

    asyncio.run(main())
    return troubles


def note(text: str = "Behind: 2nd of 3 in q/l4.", last: str | None = None, **more: Any) -> Note:
    return Note(**{"uid": "u", "namespace": "team", "name": "p", "admitted": False, "message": text, "last": last, **more})


def test_a_message_is_written_once_though_the_watch_does_not_show_it_yet() -> None:
    async def story(mail: Mail, messenger: Messenger) -> None:
        for _ in range(3):
            await messenger.tell([note()])
        assert [condition["message"] for condition in mail.conditions] == ["Behind: 2nd of 3 in q/l4."]
        assert [event["reason"] for event in mail.events] == ["Waiting"]

    assert play(story) == []


def test_what_could_not_be_written_is_written_later() -> None:
    """A pod that may start and is still said to wait would be worse than no word at all."""
    granted = note("Granted: 1 GPU of lane l4.", last="Behind: 1st of 1 in q/l4.", admitted=True)

    async def story(mail: Mail, messenger: Messenger) -> None:
        mail.refusal = 503
        await messenger.tell([granted])
        mail.refusal = 0
        await messenger.tell([granted])
        assert [(condition["status"], condition["reason"]) for condition in mail.conditions] == [("True", "Admitted")]

    assert "503" in play(story)[0]


def test_a_pod_that_is_gone_is_no_trouble() -> None:
    async def story(mail: Mail, messenger: Messenger) -> None:
        mail.refusal = 404
        await messenger.tell([note()])

    assert play(story) == []


def test_the_budget_holds_and_the_most_urgent_is_told() -> None:
    async def story(mail: Mail, messenger: Messenger) -> None:
        notes = [note(f"Behind: {place}th of 99 in q/l4.", uid=str(place), name=str(place)) for place in range(14, 4, -1)]
        await messenger.tell(notes)
        assert mail.asked == 4, "four seconds of one a second"
        assert mail.conditions[0]["message"].startswith("Behind: 5th")

    play(story, budget=1.0)


def test_argo_shows_what_is_said_or_not_as_the_settings_have_it() -> None:
    async def story(mail: Mail, messenger: Messenger) -> None:
        await messenger.tell([note()])
        assert mail.conditions[0]["reason"] == "Behind"

    play(story, surface=False)


def test_a_message_is_never_longer_than_what_the_api_takes() -> None:
    async def story(mail: Mail, messenger: Messenger) -> None:
        await messenger.tell([note("GateCannotOpen: " + "no " * 5000)])
        await messenger.about_pod("team", "p", "u", "IdleGPUs", "x" * 5000)
        assert [len(each["message"]) for each in mail.conditions] == [1000]
        assert [len(each["note"]) for each in mail.events] == [1000, 1000]

    play(story)
