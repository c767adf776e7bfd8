"""What trainings brought is rolled out by itself: on documents in memory, with a real database and a real audit log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlpipelines.triggers import roller as rolling
from mlpipelines.triggers.decide import Cause, Freeze, Policy, Reason, Signal
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.roller import Roller
from mlpipelines.triggers.rollout_notices import of_rollout
from mlpipelines.triggers.rollouts import Rollouts, Wanted
from mlpipelines.triggers.starts import Ended
from mlserving.audit.database import AuditLog
from mlserving.database import open_database
from mlserving.errors import NobodyServes, NotServed, Unavailable
from mlserving.gateway.settings import Track
from mlserving.rollout import actions
from mlserving.rollout.actions import Room, Wish
from mlserving.rollout.aliases import Registry
from mlserving.rollout.document import Desired
from mlserving.rollout.plan import Phase, Rollout
from postgres import postgres_server, url_of
from rollouts import NOW, MemoryDriver, World, WorldSource, plan, served

PROJECT = """
name: demo
team: growth
task: classification
source: {kind: parquet, path: rows}
features: {pages: integer}
label: {column: left}
deployment: {track: canary, rollout: {min_requests: 200, min_seconds: 10, max_seconds: 1000, keep_warm_seconds: 60}}
retraining: {rollout: automatic}
"""
RUN = "demo-drift-1"


class Scene:
    """One model that is served, a trigger's ledger, and a clock that is ours."""

    def __init__(self, folder: Path, database: Engine, **world: float) -> None:
        self.file = folder / "projects" / "demo" / "project.yaml"
        self.file.parent.mkdir(parents=True)
        self.file.write_text(PROJECT)
        self.now, self.world, self.driver = NOW, World(1, **world), MemoryDriver(served())  # type: ignore[arg-type]
        self.ledger, self.rollouts = Ledger(database), Rollouts(database)
        self.audit = AuditLog(f"sqlite:///{folder}/audit.db")
        self.registry = Registry(f"sqlite:///{folder}/none.db")
        self.trouble: Exception | None = None
        self.moved: list[str] = []
        self.notices: list[str] = []

    def room(self, _model: str, who: str = "trigger") -> Room:
        if self.trouble is not None:
            raise self.trouble
        return Room(
            driver=self.driver, source=WorldSource(self.world), registry=self.registry, audit=self.audit, who=who, clock=lambda: self.now
        )

    @property
    def roller(self) -> Roller:
        """Another one each time: it remembers nothing."""
        asked = rolling.World(
            projects=Projects(self.file.parent.parent),
            room=self.room,
            frozen=lambda model: self.ledger.frozen(model, self.now),
            reason_of=lambda _run: "drift: pages drifted",
        )
        return Roller(self.rollouts, asked, ears=[rolling.Ear(moved=self._heard)], clock=lambda: self.now)

    def _heard(self, row: Wanted, rollout: Rollout) -> None:
        self.moved.append(str(rollout.phase))
        notice = of_rollout(row.run, "drift: pages drifted", rollout)
        self.notices += [f"{notice.title}: {notice.text}"] if notice else []

    def run_ended(self, run: str = RUN, version: int = 2, outcome: str = "blessed") -> None:
        self.roller.ear().ended(run, "demo", Ended(outcome=outcome, facts={"version": version}))

    def work(self, seconds: float = 2.0) -> Wanted | None:
        """Time passes, and whoever comes does what is due."""
        weight = (self.driver.read("demo").rollout or rolled_out()).weight
        self.world.pass_time(seconds, weight)
        self.now += seconds
        row = self.rollouts.claim(self.now, self.now + 20)
        if row is not None:
            self.roller.step(row)
        return row

    def until(self, phase: str, turns: int = 600) -> Wanted:
        for _ in range(turns):
            self.work(15.0)
            if self.row().phase == phase:
                return self.row()
        raise AssertionError(f"never {phase}: {self.row()}")

    def row(self, run: str = RUN) -> Wanted:
        return next(row for row in self.rollouts.last("demo") if row.run == run)

    def log(self) -> list[tuple[str, str]]:
        return [(entry.fact.who, entry.fact.action.removeprefix("rollout.")) for entry in self.audit.entries()]

    def desired(self) -> Desired:
        return self.driver.read("demo")


def rolled_out() -> Rollout:
    """Nothing under way."""
    return Rollout(id="none", model="demo", from_version=1, to_version=2, plan=plan(), phase=Phase.DONE, started=NOW, started_by="ann")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/serving.db")
    yield engine
    engine.dispose()


@pytest.fixture
def scene(tmp_path: Path, database: Engine) -> Scene:
    return Scene(tmp_path, database)


def test_a_blessed_version_of_a_triggered_run_takes_over_step_by_step_and_the_old_one_goes(scene: Scene) -> None:
    scene.run_ended()
    row = scene.until("done")
    assert (row.state, row.version) == ("ended", 2)
    assert scene.desired().tracks.keys() == {Track.STABLE}
    assert scene.desired().stable.version == 2
    assert scene.moved == ["canary", "promoting", "done"]
    assert scene.log() == [("trigger", word) for word in ("start", "step", "step", "step", "promote", "settle")]
    rollout = scene.desired().rollout
    assert rollout is not None
    assert (rollout.id, rollout.started_by, rollout.reason) == (RUN, "trigger", f"drift: pages drifted ({RUN})")
    assert scene.notices[0].startswith("demo: canary started: Version 2 answers 1 % of the requests")
    assert scene.notices[1].startswith("demo: deployed: Version 2 answers everything")


@pytest.mark.postgres
def test_its_rows_lie_in_postgresql_too(tmp_path: Path) -> None:
    with postgres_server() as server:
        engine = open_database(url_of(server))
        scene = Scene(tmp_path, engine)
        scene.run_ended()
        assert scene.rollouts.due() == {"demo": NOW}
        assert scene.rollouts.newer("demo", 1) == 2
        scene.until("done")
        assert scene.rollouts.due() == {}
        engine.dispose()


def test_a_worse_version_is_aborted_and_people_are_told_which_check_failed(tmp_path: Path, database: Engine) -> None:
    scene = Scene(tmp_path, database, canary_errors=0.2)
    scene.run_ended()
    row = scene.until("aborted")
    assert (row.state, scene.desired().answering.version) == ("ended", 1)
    assert "errors" in row.text
    assert "demo: rollout aborted: Version 1 answers everything again. Version 2: errors" in scene.notices[-1]
    assert scene.rollouts.due() == {}


def test_where_the_project_rolls_out_by_hand_nothing_is_begun(scene: Scene) -> None:
    scene.file.write_text(PROJECT.replace("automatic", "by-hand"))
    scene.run_ended()
    assert scene.rollouts.last("demo") == []


@pytest.mark.parametrize("outcome", ["rejected", "unchanged", "failed", "killed"])
def test_a_run_without_a_blessed_version_wants_no_rollout(scene: Scene, outcome: str) -> None:
    scene.run_ended(outcome=outcome)
    assert scene.rollouts.last("demo") == []


def test_told_twice_of_a_run_s_end_it_is_one_rollout(scene: Scene) -> None:
    for _ in range(3):
        scene.run_ended()
    scene.until("done")
    scene.run_ended()
    assert scene.work() is None
    assert [word for _, word in scene.log()].count("start") == 1


def test_a_freeze_holds_back_every_step_but_never_the_way_back(tmp_path: Path, database: Engine) -> None:
    scene = Scene(tmp_path, database, canary_errors=0.2)
    scene.ledger.freeze("demo", Freeze(by="ann", why="month end"), scene.now)
    scene.run_ended()
    scene.work()
    assert "ann froze demo (month end)" in scene.row().text
    assert scene.log() == []
    scene.ledger.thaw("demo", "ann", scene.now)
    scene.until("canary")
    scene.ledger.freeze("demo", Freeze(by="ann", why="an incident"), scene.now)
    scene.until("aborted")


def test_a_canary_under_a_freeze_stays_where_it_is_and_goes_on_once_it_is_lifted(scene: Scene) -> None:
    scene.run_ended()
    scene.until("canary")
    scene.ledger.freeze("demo", Freeze(by="ann", why="month end"), scene.now)
    for _ in range(100):
        scene.work(15.0)
    rollout = scene.desired().rollout
    assert rollout is not None
    assert (rollout.phase, rollout.weight) == (Phase.CANARY, 1)
    assert "held back: ann froze demo (month end)" in scene.row().text
    scene.ledger.thaw("demo", "ann", scene.now)
    scene.until("done")


def test_an_approval_is_waited_for_and_the_trigger_gives_none(scene: Scene) -> None:
    scene.file.write_text(PROJECT.replace("deployment: {", "deployment: {approval: {required: true, two_person: true}, "))
    scene.run_ended()
    row = scene.until("awaiting_approval")
    for _ in range(50):
        scene.work(15.0)
    assert scene.row().phase == "awaiting_approval"
    assert "approval is needed" in row.text
    assert "approval needed" in scene.notices[-1]
    actions.approve(scene.room("demo", who="ann"), "demo", "looks fine")
    scene.until("done")
    assert ("ann", "approve") in scene.log()


def test_while_somebody_else_s_rollout_goes_on_it_waits(scene: Scene) -> None:
    scene.run_ended(version=4)
    actions.start(scene.room("demo", who="ann"), Wish(model="demo", version=3, plan=plan(), reason="by hand"))
    for _ in range(20):
        scene.work(15.0)
    assert scene.row().state == "wanted"
    assert "waits for the end of the rollout" in scene.row().text
    actions.abort(scene.room("demo", who="ann"), "demo", "not now")
    scene.until("canary")
    assert scene.desired().tracks[Track.CANARY].version == 4


def test_what_a_person_has_decided_about_a_version_stands(scene: Scene) -> None:
    scene.run_ended()
    actions.start(scene.room("demo", who="ann"), Wish(model="demo", version=2, plan=plan(), reason="by hand"))
    actions.abort(scene.room("demo", who="ann"), "demo", "not this one")
    scene.work()
    row = scene.row()
    assert (row.state, row.phase) == ("ended", "by hand")
    assert "ann rolled version 2 out: aborted, not this one" in row.text


def test_a_person_may_abort_or_promote_what_the_trigger_began(scene: Scene) -> None:
    scene.run_ended()
    scene.until("canary")
    actions.abort(scene.room("demo", who="ann"), "demo", "customers complain")
    scene.work(20.0)
    assert (scene.row().state, scene.row().phase, scene.row().text) == ("ended", "aborted", "customers complain")
    assert scene.moved[-1] == "aborted"


def test_of_two_versions_that_wait_only_the_newer_one_is_rolled_out(scene: Scene) -> None:
    scene.run_ended("demo-drift-1", 2)
    scene.now += 1
    scene.run_ended("demo-quality-2", 3)
    for _ in range(5):
        scene.work(15.0)
    assert (scene.row("demo-drift-1").phase, scene.row("demo-drift-1").text) == ("superseded", "version 3 is newer")
    assert scene.row("demo-quality-2").phase == "canary"
    assert [word for _, word in scene.log()].count("start") == 1


def test_a_version_that_does_not_load_is_aborted_once_and_nobody_gets_it(scene: Scene) -> None:
    scene.driver.broken = {2}
    scene.run_ended()
    row = scene.until("aborted")
    assert "could not be loaded" in row.text
    assert [word for _, word in scene.log()] == ["start", "abort"]


@pytest.mark.parametrize("trouble", [NotServed("demo is not served on tracks"), Unavailable("no answer"), NobodyServes("nothing serves")])
def test_what_is_not_there_at_the_moment_is_waited_for_and_grows_overdue(scene: Scene, trouble: Exception) -> None:
    scene.run_ended()
    scene.trouble = trouble
    for _ in range(10):
        scene.work(60.0)
    assert scene.row().state == "wanted"
    assert scene.row().text == str(trouble)
    assert scene.rollouts.due() == {"demo": NOW}
    scene.trouble = None
    scene.until("done")


def test_while_its_canary_is_judged_a_model_is_trained_again_only_by_hand(scene: Scene) -> None:
    facts = Facts(policy=Policy(cooldown=0.0))
    cause = Cause(model="demo", signal=Signal.QUALITY, fingerprint="q", starts_at=NOW)

    def reason(cause: Cause) -> Reason:
        return scene.ledger.settle([cause], lambda _: facts, scene.now)[0].reason

    scene.run_ended()
    assert reason(cause) is Reason.ROLLOUT_OPEN, "it is about to begin"
    scene.until("canary")
    assert reason(cause) is Reason.ROLLOUT_OPEN
    scene.until("promoting")
    assert reason(cause) is Reason.STARTED
    assert reason(replace(cause, signal=Signal.BY_HAND, fingerprint="b")) is Reason.RUN_OPEN


@pytest.mark.parametrize("write", range(1, 12))
def test_cut_off_before_any_write_the_next_one_goes_on_and_it_ends_the_same(scene: Scene, write: int) -> None:
    """Each write of the document fails once, as if the process had died there: after the audit log's entry, before the deed."""

    class CutOffError(BaseException):
        pass

    left = [write]

    def cut() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise CutOffError

    scene.driver.before_write = cut
    scene.run_ended()
    for _ in range(600):
        try:
            scene.work(30.0)  # longer than a claim lasts
        except CutOffError:
            continue
        if scene.row().state == "ended":
            break
    assert scene.row().phase == "done"
    assert scene.desired().stable.version == 2
    weights = [each.tracks[Track.CANARY].weight for each in scene.driver.writes if Track.CANARY in each.tracks]
    assert list(dict.fromkeys(weights)) == [0, 1, 10, 50, 100]
    assert scene.moved.count("done") == 1
