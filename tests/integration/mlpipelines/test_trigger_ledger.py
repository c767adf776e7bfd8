"""Decisions on retraining, written once whatever happens: on SQLite and on PostgreSQL, from several processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from mlpipelines.errors import MillraceError
from mlpipelines.triggers.decide import Cause, Decision, Freeze, Policy, Reason, Signal
from mlpipelines.triggers.ledger import Facts, Ledger
from mlserving.database import open_database
from postgres import postgres_server, url_of

NOW = 1_800_000_000.0
POLICY = Policy(cooldown=3600.0, budget_runs=3)
FACTS = Facts(policy=POLICY, new_labels=10)
TELL = """
import sys
from mlpipelines.triggers.decide import Cause, Policy, Signal
from mlpipelines.triggers.ledger import Facts, Ledger
from mlserving.database import open_database
ledger = Ledger(open_database(sys.argv[1]))
for n in range(int(sys.argv[3])):
    cause = Cause(model=sys.argv[2], signal=Signal.DRIFT, fingerprint=f"f{n}", starts_at=1.0)
    print(ledger.settle([cause], lambda _: Facts(policy=Policy(cooldown=0.0, budget_runs=3)), 1_800_000_000.0 + n)[0].reason)
"""


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'serving.db'}"
        return
    with postgres_server() as port:
        yield url_of(port)


@pytest.fixture
def database(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(database: Engine) -> Ledger:
    return Ledger(database)


@pytest.fixture
def cause(request: pytest.FixtureRequest) -> Cause:
    """Each test has a model of its own in the shared database."""
    return Cause(model=request.node.name, signal=Signal.DRIFT, fingerprint="f", starts_at=NOW - 60, summary="amount drifted")


def settled(ledger: Ledger, cause: Cause, facts: Callable[[], Facts], now: float) -> Decision:
    (decision,) = ledger.settle([cause], lambda _: facts(), now)
    return decision


def names(ledger: Ledger, model: str) -> list[str]:
    return [run.name for run in ledger.wanted() if run.model == model]


def test_a_start_leaves_a_decision_and_a_wanted_run(ledger: Ledger, cause: Cause) -> None:
    assert settled(ledger, cause, lambda: FACTS, NOW).starts
    assert names(ledger, cause.model) == [cause.run_name]
    (told,) = ledger.decisions(cause.model)
    assert (told.reason, told.summary, told.at) == (Reason.STARTED, "amount drifted", NOW)


def test_what_is_told_again_starts_nothing_and_is_written_once(ledger: Ledger, cause: Cause) -> None:
    for later in range(5):
        settled(ledger, cause, lambda: FACTS, NOW + later)
    assert [told.reason for told in ledger.decisions(cause.model)] == [Reason.DUPLICATE, Reason.STARTED]
    assert len(names(ledger, cause.model)) == 1


def test_an_alert_that_came_too_early_starts_its_run_when_it_is_repeated_later(ledger: Ledger, cause: Cause) -> None:
    first, second = cause, replace(cause, fingerprint="g")
    settled(ledger, first, lambda: FACTS, NOW)
    ledger.note_started(first.run_name)
    ledger.note_ended(first.run_name, "blessed")
    assert settled(ledger, second, lambda: FACTS, NOW + 60).reason is Reason.COOLDOWN
    assert settled(ledger, second, lambda: FACTS, NOW + 3600).starts


def test_a_run_that_has_not_ended_holds_the_next_one_back(ledger: Ledger, cause: Cause) -> None:
    settled(ledger, cause, lambda: FACTS, NOW)
    other = replace(cause, fingerprint="g")
    assert settled(ledger, other, lambda: FACTS, NOW + 7200).reason is Reason.RUN_OPEN
    ledger.note_started(cause.run_name)
    assert (cause.run_name, cause.model) in ledger.open_runs()
    ledger.note_ended(cause.run_name, "rejected")
    assert settled(ledger, other, lambda: FACTS, NOW + 7201).starts


def test_gpu_hours_that_runs_held_are_kept_and_spend_the_budget(ledger: Ledger, cause: Cause) -> None:
    budget = replace(FACTS, policy=Policy(cooldown=0.0, budget_gpu_seconds=3 * 3600.0))
    for number, held in enumerate([2 * 3600.0, 1.5 * 3600.0]):
        one = replace(cause, fingerprint=f"f{number}")
        assert settled(ledger, one, lambda: budget, NOW + number).starts
        ledger.note_ended(one.run_name, "blessed", gpu_seconds=held)
        ledger.note_ended(one.run_name, "blessed", gpu_seconds=held)  # another replica saw it end, too
    assert [run.gpu_seconds for run in ledger.runs(cause.model)] == [1.5 * 3600.0, 2 * 3600.0]
    decision = settled(ledger, cause, lambda: budget, NOW + 10)
    assert decision.reason is Reason.BUDGET_SPENT
    assert "3.5 of its 3 GPU hours" in decision.text
    assert ledger.decisions(cause.model)[0].evidence["gpu_hours"] == 3.5


def test_what_could_not_be_started_stays_wanted_and_says_why(ledger: Ledger, cause: Cause) -> None:
    settled(ledger, cause, lambda: FACTS, NOW)
    ledger.note_trouble(cause.run_name, "Kubeflow does not answer")
    (wanted,) = [run for run in ledger.wanted() if run.model == cause.model]
    assert (wanted.trouble, wanted.cause["summary"]) == ("Kubeflow does not answer", "amount drifted")


def test_a_claim_is_for_one_until_it_runs_out(ledger: Ledger, cause: Cause) -> None:
    for wanted in ledger.wanted():  # of other tests in this database
        ledger.note_ended(wanted.name, "blessed")
    settled(ledger, cause, lambda: FACTS, NOW)
    first = ledger.claim(NOW, NOW + 60)
    assert first is not None
    assert first.name == cause.run_name
    assert ledger.claim(NOW + 59, NOW + 100) is None
    assert ledger.claim(NOW + 60, NOW + 100) is not None
    ledger.note_trouble(cause.run_name, "no", again_at=NOW + 500)
    assert ledger.claim(NOW + 499, NOW + 600) is None
    again = ledger.claim(NOW + 500, NOW + 600)
    assert again is not None
    assert (again.tries, again.trouble, again.reason) == (1, "no", "drift: amount drifted")
    ledger.note_started(cause.run_name, "http://kubeflow/1")
    assert ledger.claim(NOW + 9000, NOW + 9001) is None
    (known,) = ledger.runs(cause.model)
    assert (known.state, known.address, known.trouble) == ("started", "http://kubeflow/1", "")
    ledger.note_ended(cause.run_name, "failed", "out of memory")
    assert ledger.last_outcomes()[cause.model] == "failed"


CLAIM = """
import sys
from mlpipelines.triggers.ledger import Ledger
from mlserving.database import open_database
ledger = Ledger(open_database(sys.argv[1]))
while (run := ledger.claim(1_800_000_000.0, 1_800_000_060.0)) is not None:
    print(run.name)
"""


def test_several_that_claim_at_once_share_the_runs_among_them(url: str, ledger: Ledger, cause: Cause) -> None:
    for wanted in ledger.wanted():  # of other tests in this database
        ledger.note_ended(wanted.name, "blessed")
    made = [replace(cause, model=f"{cause.model}-{n}") for n in range(20)]
    ledger.settle(made, lambda _: FACTS, NOW)
    claimers = [subprocess.Popen([sys.executable, "-c", CLAIM, url], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    claimed = [line for claimer in claimers for line in claimer.communicate(timeout=200)[0].split()]
    assert sorted(claimed) == sorted(each.run_name for each in made)


def test_many_causes_of_one_message_start_one_run(ledger: Ledger, cause: Cause) -> None:
    told = [replace(cause, fingerprint=f"f{n % 5}") for n in range(50)]
    reasons = [decision.reason for decision in ledger.settle(told, lambda _: FACTS, NOW)]
    assert Counter(reasons) == {Reason.STARTED: 1, Reason.DUPLICATE: 9, Reason.RUN_OPEN: 40}
    assert len(names(ledger, cause.model)) == 1


def test_a_freeze_holds_until_it_is_lifted(ledger: Ledger, cause: Cause) -> None:
    ledger.freeze(cause.model, Freeze(by="Ada", why="month end"), NOW)
    assert settled(ledger, cause, lambda: FACTS, NOW).reason is Reason.FROZEN
    assert ledger.thaw(cause.model, "Ada", NOW + 1)
    assert not ledger.thaw(cause.model, "Ada", NOW + 2)
    assert settled(ledger, cause, lambda: FACTS, NOW + 3).starts


def test_nothing_is_decided_when_the_facts_cannot_be_had(ledger: Ledger, cause: Cause) -> None:
    def not_there() -> Facts:
        raise MillraceError("labels cannot be counted")

    with pytest.raises(MillraceError):
        settled(ledger, cause, not_there, NOW)
    assert not ledger.decisions(cause.model)
    assert not names(ledger, cause.model)


def test_two_that_are_told_the_same_at_once_start_one_run_for_each_cause(url: str, ledger: Ledger, cause: Cause) -> None:
    """Both halves of a pair of Alertmanagers post to both replicas of the trigger."""
    told = 20
    replicas = [
        subprocess.Popen([sys.executable, "-c", TELL, url, cause.model, str(told)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    answers = Counter(line for replica in replicas for line in replica.communicate(timeout=200)[0].split())
    assert sum(answers.values()) == 4 * told
    assert answers["started"] == 1  # the first run is open, so whatever else is told waits for it
    assert len(names(ledger, cause.model)) == 1


def test_a_new_ledger_on_an_old_database_goes_on(url: str, ledger: Ledger, cause: Cause) -> None:
    settled(ledger, cause, lambda: FACTS, NOW)
    assert settled(Ledger(open_database(url)), cause, lambda: FACTS, NOW).reason is Reason.DUPLICATE
