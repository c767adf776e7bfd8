"""What people and loops do: on documents in memory, with a real audit log and no registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlserving.audit.chain import verify
from mlserving.audit.database import AuditLog
from mlserving.errors import ConfigError, Conflict, Unavailable
from mlserving.gateway.settings import Track
from mlserving.rollout import actions
from mlserving.rollout.actions import Room, Wish
from mlserving.rollout.aliases import Registry
from mlserving.rollout.document import Desired, history
from mlserving.rollout.plan import Approval, Phase
from rollouts import NOW, MemoryDriver, World, WorldSource, plan, served

WISH = Wish(model="demo", plan=plan(), version=2, reason="new week")


class Scene:
    """A room, its world, and a clock that is ours."""

    def __init__(self, folder: Path, **world: float) -> None:
        self.driver, self.world, self.now = MemoryDriver(served()), World(1, **world), NOW  # type: ignore[arg-type]
        self.room = Room(
            driver=self.driver,
            source=WorldSource(self.world),
            registry=Registry(f"sqlite:///{folder}/none.db"),
            audit=AuditLog(f"sqlite:///{folder}/audit.db"),
            who="ann",
            clock=lambda: self.now,
        )

    def by(self, who: str) -> Room:
        return replace(self.room, who=who)

    def pass_time(self, seconds: float) -> None:
        desired = self.driver.read("demo")
        assert desired.rollout is not None
        self.world.pass_time(seconds, desired.rollout.weight)
        self.now += seconds

    def run(self, turns: int = 200) -> Desired:
        """Let time pass and judge, until there is nothing to judge."""
        for _ in range(turns):
            self.pass_time(2)
            desired, _ = actions.advance(self.room, "demo")
            assert desired.rollout is not None
            if desired.rollout.phase not in (Phase.CANARY, Phase.HOLDING):
                return desired
        raise AssertionError("it never ended")

    def log(self) -> list[tuple[str, str]]:
        assert verify(self.room.audit.entries()).broken == ""
        return [(entry.fact.who, entry.fact.action) for entry in self.room.audit.entries()]

    def weights(self) -> list[tuple[float, float]]:
        """(stable, canary) of each write, once each."""
        found: list[tuple[float, float]] = []
        for each in self.driver.writes:
            canary = each.tracks.get(Track.CANARY)
            pair = (each.stable.weight, canary.weight if canary else 0.0)
            if not found or found[-1] != pair:
                found.append(pair)
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_good_version_goes_through_every_step_and_stays_beside_the_old_one(scene: Scene) -> None:
    actions.start(scene.room, WISH)
    desired = scene.run()
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.PROMOTING
    assert scene.weights() == [(100, 0), (99, 1), (90, 10), (50, 50), (0, 100)]
    assert desired.stable.version == 1
    assert desired.answering.version == 2
    assert scene.log() == [("ann", f"rollout.{word}") for word in ("start", "step", "step", "step", "promote")]


def test_a_bad_version_is_aborted_and_unloaded_with_the_reason(tmp_path: Path) -> None:
    scene = Scene(tmp_path, canary_errors=0.1)
    actions.start(scene.room, WISH)
    desired = scene.run()
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.ABORTED
    assert "failed" in desired.rollout.ended_because
    assert desired.tracks.keys() == {Track.STABLE}
    assert scene.log()[-1] == ("ann", "rollout.abort")
    assert list(scene.room.audit.entries())[-1].fact.details["checks"][0]["verdict"] == "worse"


def test_a_version_that_does_not_load_never_gets_a_request(scene: Scene) -> None:
    scene.driver.broken = {2}
    with pytest.raises(Unavailable, match="could not be loaded"):
        actions.start(scene.room, WISH)
    desired = scene.driver.read("demo")
    assert desired.tracks.keys() == {Track.STABLE}
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.ABORTED
    assert scene.weights() == [(100, 0)]


def test_a_version_that_gateways_do_not_reach_never_gets_a_request_and_is_not_judged_by_it(scene: Scene) -> None:
    source = scene.room.source
    assert isinstance(source, WorldSource)
    source.reached = False
    with pytest.raises(Unavailable, match="not every gateway reaches it"):
        actions.start(scene.room, WISH)
    desired = scene.driver.read("demo")
    assert desired.rollout is not None
    assert desired.tracks.keys() == {Track.STABLE}
    assert desired.rollout.phase is Phase.ABORTED
    assert scene.weights() == [(100, 0)]


def test_a_canary_that_has_died_is_got_rid_of_all_the_same(scene: Scene) -> None:
    actions.start(scene.room, WISH)
    scene.driver.broken = {2}
    assert actions.abort(scene.room, "demo", "it is dead").tracks.keys() == {Track.STABLE}


def test_a_rollback_while_the_old_version_is_warm_is_one_write(scene: Scene) -> None:
    actions.start(scene.room, WISH)
    scene.run()
    written = len(scene.driver.writes)
    desired = actions.rollback(scene.by("bob"), "demo", "customers complain")
    assert len(scene.driver.writes) == written + 1
    assert {track: (wanted.version, wanted.weight) for track, wanted in desired.tracks.items()} == {Track.STABLE: (1, 100)}
    assert desired.rollout is not None
    assert (desired.rollout.phase, desired.rollout.ended_because) == (Phase.ROLLED_BACK, "customers complain")
    assert scene.log()[-1] == ("bob", "rollout.rollback")


def test_after_its_warm_time_the_old_version_goes_without_a_moment_in_which_nothing_answers(scene: Scene) -> None:
    actions.start(scene.room, WISH)
    scene.run()
    desired, told = actions.advance(scene.room, "demo")
    assert "stays warm for 3,600 s more" in told
    scene.now += 3601
    written = len(scene.driver.writes)
    desired, _ = actions.advance(scene.room, "demo")
    assert [each.answering.version for each in scene.driver.writes[written:]] == [2, 2]
    assert (desired.stable.version, desired.tracks.keys()) == (2, {Track.STABLE})
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.DONE


def test_a_rollback_after_that_loads_the_old_version_before_it_moves_a_request(scene: Scene) -> None:
    actions.start(scene.room, WISH)
    scene.run()
    actions.finish(scene.room, "demo")
    written = len(scene.driver.writes)
    desired = actions.rollback(scene.room, "demo", "late news")
    assert [each.answering.version for each in scene.driver.writes[written:]] == [2, 1, 1, 1]
    assert (desired.stable.version, desired.tracks.keys()) == (1, {Track.STABLE})
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.ROLLED_BACK


def test_another_rollout_waits_for_the_one_under_way_and_the_history_keeps_both(scene: Scene) -> None:
    actions.start(scene.room, WISH)
    with pytest.raises(Conflict, match="under way"):
        actions.start(scene.room, WISH)
    actions.abort(scene.room, "demo", "wrong model")
    scene.now += 10
    again = actions.start(scene.room, replace(WISH, reason="the right one"))
    assert [past.reason for past in history(again)] == ["the right one", "new week"]


def test_the_version_that_answers_is_no_canary(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="answers already"):
        actions.start(scene.room, replace(WISH, version=1))


def test_a_person_who_may_must_agree_and_the_one_who_started_may_not(scene: Scene) -> None:
    approval = Approval(required=True, approvers=("ann", "bob"), two_person=True)
    actions.start(scene.room, replace(WISH, approval=approval))
    desired = scene.run()
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.AWAITING_APPROVAL
    assert desired.rollout.weight == 50
    with pytest.raises(ConfigError, match="needs somebody's approval"):
        actions.promote(scene.room, "demo", "now")
    with pytest.raises(ConfigError, match="ann started"):
        actions.approve(scene.room, "demo")
    with pytest.raises(ConfigError, match="carl may not approve"):
        actions.approve(scene.by("carl"), "demo")
    actions.approve(scene.by("bob"), "demo", "figures are fine")
    desired, _ = actions.advance(scene.room, "demo")
    assert desired.rollout is not None
    assert desired.rollout.phase is Phase.PROMOTING
    assert [entry.by for entry in desired.rollout.approvals] == ["bob"]


def test_nobody_writes_over_what_somebody_else_wrote_and_the_log_tells(scene: Scene) -> None:
    actions.start(scene.room, WISH)

    def meanwhile() -> None:
        scene.driver.before_write = lambda: None
        actions.abort(scene.by("bob"), "demo", "first")

    scene.driver.before_write = meanwhile
    with pytest.raises(Conflict):
        actions.promote(scene.room, "demo", "second")
    found = scene.driver.read("demo").rollout
    assert found is not None
    assert found.ended_because == "first"
    assert scene.log()[-1] == ("ann", "rollout.promote.failed")


def test_whatever_was_killed_is_gone_on_with(scene: Scene) -> None:
    """Every write could have been the last thing that the one before did; another machine takes over after each."""

    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    def once() -> None:
        scene.driver.before_write = kill

    def go_on(action: object) -> None:
        scene.driver.before_write = once
        with pytest.raises(Killed):
            action()  # type: ignore[operator]
        scene.driver.before_write = lambda: None

    go_on(lambda: actions.start(scene.room, WISH))
    phases = []
    for _ in range(300):
        scene.pass_time(2)
        desired = scene.driver.read("demo")
        assert desired.rollout is not None
        phases.append(desired.rollout.phase)
        if desired.rollout.phase is Phase.PROMOTING:
            break
        scene.driver.before_write = once
        try:
            actions.advance(scene.room, "demo")
        except Killed:
            pass
        finally:
            scene.driver.before_write = lambda: None
    assert phases[0] is Phase.STARTING
    assert phases[-1] is Phase.PROMOTING
    assert scene.weights() == [(100, 0), (99, 1), (90, 10), (50, 50), (0, 100)]


def test_without_its_log_nothing_is_done(scene: Scene) -> None:
    deaf = replace(scene.room, audit=AuditLog("postgresql+psycopg://nobody@127.0.0.1:9/none"))
    with pytest.raises(Unavailable):
        actions.start(deaf, WISH)
    assert scene.driver.writes == []
