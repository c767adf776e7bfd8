"""One track with several model servers behind one name, as behind a headless Service: each has its share, and one that goes costs nobody an answer."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateways import Server, ask, channel, gateway, model_server
from under_load import Stream
from waiting import eventually

_NAME = "models.test"


class Fleet:
    """Servers of one track on 127.0.0.2, .3, … at the same two ports."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.names = folder / "names.json"
        self._folder, self._stack = folder, stack
        first = self.start(2, "0", "0")
        self.ports = first.grpc.split(":")[1], first.rest.split(":")[1]
        self.servers = {2: first, 3: self.start(3, *self.ports)}
        self.named(2, 3)

    def start(self, last: int, grpc_port: str, rest_port: str) -> Server:
        arguments = ["--host", f"127.0.0.{last}", "--version", "1", "--grpc-port", grpc_port, "--rest-port", rest_port]
        return self._stack.enter_context(model_server(self._folder / f"{last}-{grpc_port}", *arguments))

    def named(self, *lasts: int) -> None:
        """What the name service says from now on."""
        temporary = self.names.with_suffix(".new")
        temporary.write_text(json.dumps({_NAME: [f"127.0.0.{last}" for last in lasts]}))
        temporary.rename(self.names)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield Fleet(tmp_path, stack)


@pytest.fixture
def front(tmp_path: Path, fleet: Fleet) -> Iterator[Server]:
    grpc_port, rest_port = fleet.ports
    settings = (
        f"models: {{m: {{deadline: 2, tracks: {{stable: {{grpc: '{_NAME}:{grpc_port}', rest: '{_NAME}:{rest_port}', weight: 100}}}}}}}}"
    )
    with gateway(tmp_path / "g", settings, names=fleet.names) as found:
        yield found


def up(front: Server) -> set[str]:
    return {each["address"].split(":")[0] for each in endpoints(front) if each["up"]}


def endpoints(front: Server) -> list[dict[str, Any]]:
    return list(front.tracks()["models"]["m"]["tracks"]["stable"]["endpoints"])


def test_each_server_has_its_share(front: Server, fleet: Fleet) -> None:
    with channel(front.grpc) as opened:
        for n in range(100):
            ask(opened, f"{n}")
    assert [fleet.servers[last].seen()["predict"] for last in (2, 3)] == [50, 50]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_goes_under_load_costs_nobody_an_answer(front: Server, fleet: Fleet, number: signal.Signals) -> None:
    with Stream(front) as stream:
        stream.more()
        fleet.servers[3].process.send_signal(number)
        stream.more(150)
        eventually("one of them is left out", lambda: up(front) == {"127.0.0.2"}, 20)
        fleet.start(3, *fleet.ports)
        eventually("both are up again", lambda: up(front) == {"127.0.0.2", "127.0.0.3"}, 20)
        stream.more()
    assert stream.failures == []


def test_a_server_that_hangs_is_left_out_and_what_it_was_asked_ends_by_its_deadline(front: Server, fleet: Fleet) -> None:
    with Stream(front) as stream:
        stream.more()
        fleet.servers[3].process.send_signal(signal.SIGSTOP)
        eventually("one of them is left out", lambda: up(front) == {"127.0.0.2"}, 20)
        eventually(
            "what it was asked has ended",
            lambda: (
                front.metric("millrace_gateway_in_flight") <= 6
                and all(each["in_flight"] == 0 for each in endpoints(front) if not each["up"])
            ),
            20,
        )
        failed = len(stream.failures)
        stream.more(100)
        assert len(stream.failures) == failed
    assert failed <= 6 * 4  # six callers; what each had under way until the hang was noticed
    assert {failure.split(":")[0] for failure in stream.failures} <= {"gRPC DEADLINE_EXCEEDED", "REST 504"}


def test_servers_come_and_go_by_what_the_name_says(front: Server, fleet: Fleet) -> None:
    with Stream(front) as stream:
        stream.more()
        fleet.start(4, *fleet.ports)
        fleet.named(3, 4)
        eventually("the named ones are up", lambda: up(front) == {"127.0.0.3", "127.0.0.4"}, 20)
        stream.more()
        fleet.names.write_text("{}")  # the name service knows nothing any more: those that are there go on
        stream.more()
        assert up(front) == {"127.0.0.3", "127.0.0.4"}
    assert stream.failures == []
