"""Rollouts on one machine under a steady stream of requests: whatever moves, dies or does not load, nobody's request fails."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlserving.errors import ConfigError, Unavailable
from mlserving.gateway.settings import Log
from mlserving.rollout import actions
from mlserving.rollout.actions import Room, Wish
from mlserving.rollout.plan import Limits, Phase, Plan
from mlserving.rollout.wiring import local_room
from typed_commands import millrace
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PLAN = Plan(steps=(20, 50, 100), min_requests=60, first_look=30, min_seconds=1, limits=Limits(latency_ratio=None, distance=0.3))
WISH = Wish(model="demo", version=2, plan=PLAN, reason="a test", log=Log(share=1.0))


@pytest.fixture
def room(serving: Any) -> Room:
    return local_room(serving.workspace, "ann")


def advance_until(room: Room, phase: Phase, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while True:
        desired, told = actions.advance(room, "demo")
        assert desired.rollout is not None
        if desired.rollout.phase is phase:
            return
        assert desired.rollout.open, told
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def servers(workspace: Path) -> dict[str, int]:
    """Process ids of the model servers and of the gateway, by name."""
    import json

    return {path.stem: json.loads(path.read_text())["pid"] for path in (workspace / "serving" / "run").glob("*.json")}


def test_canary_promotion_and_rollback_lose_no_request_and_the_rollback_takes_seconds(serving: Any, room: Room, load: Any) -> None:
    with load.running():
        actions.start(room, WISH)
        advance_until(room, Phase.PROMOTING)
        eventually("it is told that it is promoted", lambda: serving.told_phase() == "promoting", 120)
        eventually("version 1 answers no more", lambda: time.monotonic() - load.last["1"] > 0.5, 120)
        commanded = time.monotonic()
        actions.rollback(room, "demo", "to see how long it takes")
        eventually("version 2 answers no more", lambda: time.monotonic() - load.last["2"] > 2, 120)
    eventually("it is told that it was rolled back", lambda: serving.told_phase() == "rolled_back", 120)
    assert load.failures == {}
    assert load.wrong == []
    assert load.last["2"] - commanded < 10
    assert {version for _, version in load.answers} == {"1", "2"}


def test_the_classes_that_are_compared_are_those_that_the_gateway_logged(serving: Any, room: Room, load: Any) -> None:
    with load.running():
        actions.start(room, WISH)
        advance_until(room, Phase.CANARY)

        def counted_on_both() -> bool:
            """Without going on: the recorder is some seconds behind, and a step of this plan is shorter than that."""
            desired = room.driver.read("demo")
            assert desired.rollout is not None
            seen = room.source.observe(desired.rollout, room.clock())
            return bool(seen.canary.classes.get("tools", 0) and seen.stable.classes.get("tools", 0))

        eventually("answers are counted on both", counted_on_both, 120)
        actions.rollback(room, "demo", "seen enough")
    assert load.failures == {}


def test_a_canary_that_is_killed_fails_nobody_and_is_got_rid_of(serving: Any, room: Room, load: Any) -> None:
    with load.running():
        actions.start(room, WISH)
        os.kill(servers(serving.workspace)["demo-2"], signal.SIGKILL)
        actions.abort(room, "demo", "it died")
    assert load.failures == {}
    eventually("the server of version 2 is gone", lambda: "demo-2" not in servers(serving.workspace), 120)


def test_a_version_that_does_not_load_is_aborted_and_nobody_notices(serving: Any, room: Room, load: Any) -> None:
    broken = serving.workspace / "models" / "demo" / "7"
    shutil.copytree(serving.workspace / "models" / "demo" / "2", broken)
    (broken / "saved_model.pb").write_bytes(b"no model")
    with load.running(), pytest.raises(Unavailable, match="could not be loaded"):
        actions.start(room, Wish(model="demo", version=7, plan=PLAN))
    assert load.failures == {}
    shutil.rmtree(broken)
    desired = room.driver.read("demo")
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.ABORTED
    assert desired.answering.version == 1


def test_a_version_that_is_not_in_the_store_is_refused_at_once(room: Room) -> None:
    with pytest.raises(ConfigError, match="no version 99"):
        actions.start(room, Wish(model="demo", version=99))


def test_a_gateway_that_dies_comes_back_on_the_same_ports(serving: Any) -> None:
    before = servers(serving.workspace)["gateway"]
    os.kill(before, signal.SIGKILL)
    eventually("another gateway runs", lambda: servers(serving.workspace).get("gateway", before) != before, 120)
    assert serving.page()["ready"]


def test_status_and_history_are_tables_and_the_log_is_whole(serving: Any, room: Room) -> None:
    actions.start(room, WISH)
    actions.abort(room, "demo", "to have a history")
    status = millrace("rollout", "status", "demo", workspace=serving.workspace).stdout
    assert "stable  1        100 %" in status
    assert "1 → 2" in millrace("rollout", "history", "demo", workspace=serving.workspace).stdout
    assert "whole" in millrace("audit", "verify", workspace=serving.workspace).stdout


def test_a_second_supervisor_on_the_workspace_is_refused(serving: Any) -> None:
    said = millrace(
        "serve", "--tracks", "demo", "--grpc-port", "0", "--rest-port", "0", "--admin-port", "0", workspace=serving.workspace, code=5
    )
    assert "runs on" in said.stderr


def test_killed_the_supervisor_leaves_no_process_behind(serving: Any) -> None:
    pids = [*servers(serving.workspace).values()]
    serving.process.kill()
    eventually("all processes are gone", lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), 60)


def test_where_nobody_serves_no_rollout_begins(workspaces: Callable[[], Path]) -> None:
    room = local_room(workspaces(), "ann")
    before = room.driver.read("demo")
    with pytest.raises(Unavailable, match="Nothing serves tracks"):
        actions.start(room, WISH)
    assert room.driver.read("demo") == before
