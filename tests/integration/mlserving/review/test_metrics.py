"""What Prometheus is told of the review queue: on either database, by a page that is served, and while the database is gone."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mlserving.review.cases import Person, Verdict
from mlserving.review.metrics import DECLARED, PREFIX, Told
from mlserving.review.outbox import Outbox
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import Database
from review_cases import MODEL, NOON, filled, new_case
from review_site import Client, people, served

ANN, BOB = Person("ann"), Person("bob")
HOUR = timedelta(hours=1)
Samples = dict[tuple[str, str], float]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def samples(text: str) -> Samples:
    """By name without the prefix, and verdict."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples if sample.name.startswith(PREFIX)]
    assert {sample.labels.get("model", MODEL) for sample in found} <= {MODEL}
    return {(sample.name.removeprefix(PREFIX), sample.labels.get("verdict", "")): sample.value for sample in found}


class Scrape:
    """Prometheus, asking."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.clock, self.registry = clock, CollectorRegistry()
        self.registry.register(Told(database, clock))

    def __call__(self, later: timedelta = timedelta(minutes=1)) -> Samples:
        self.clock.now += later
        return samples(generate_latest(self.registry).decode())


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = Database(database_url)
    yield found
    found.close()


def test_what_waits_and_what_was_done_is_told(database: Database) -> None:
    clock, queue = Clock(), ReviewQueue(database)
    scrape = Scrape(database, clock)
    assert scrape() == {("database_up", ""): 1.0}, "no model, no figures"
    filled(queue, [new_case("a", "tools"), new_case("b", "books"), new_case("c", "travel", double=True)], now=clock.now)
    before = scrape(HOUR)
    told = {name: before[name, ""] for name in ("cases", "open_cases", "open_reviews", "overdue_reviews", "undelivered_labels")}
    assert told == {"cases": 3, "open_cases": 3, "open_reviews": 4, "overdue_reviews": 0, "undelivered_labels": 0}
    assert before["oldest_open_case_age_seconds", ""] == 3600
    assert before["last_fill_timestamp_seconds", ""] == (clock.now - HOUR).timestamp()
    assert {verdict for name, verdict in before if name == "reviews_total"} == set(Verdict)
    assert ("accuracy", "") not in before

    for verdict, label in ((Verdict.CONFIRM, None), (Verdict.CORRECT, "food"), (Verdict.UNSURE, None)):
        case = queue.claim(MODEL, ANN, clock.now)
        assert case is not None
        queue.review(case.seat, ANN, verdict, label, clock.now)
    after = scrape()
    counts = {verdict: count for (name, verdict), count in after.items() if name == "reviews_total"}
    assert counts == {"confirm": 1, "correct": 1, "unsure": 1, "skip": 0, "undo": 0}
    assert (after["open_reviews", ""], after["reviewers", ""], after["undelivered_labels", ""]) == (1, 1, 2)
    assert after["accuracy_low", ""] <= after["accuracy", ""] <= after["accuracy_high", ""]
    assert scrape(HOUR)["label_lateness_seconds", ""] == pytest.approx(3660 - 30), "from when they might have left"
    Outbox(database).deliver(lambda _: None, clock.now)
    assert scrape()["label_lateness_seconds", ""] == 0


def test_what_was_taken_back_is_not_uncounted(database: Database) -> None:
    clock, queue = Clock(), ReviewQueue(database)
    filled(queue, [new_case("a")])
    case = queue.claim(MODEL, ANN, clock.now)
    assert case is not None
    queue.review(case.seat, ANN, Verdict.CONFIRM, None, clock.now)
    queue.undo(MODEL, ANN, clock.now)
    found = Scrape(database, clock)()
    assert (found["reviews_total", "confirm"], found["reviews_total", "undo"]) == (1, 1), "a counter never goes back"
    assert (found["open_cases", ""], found["undelivered_labels", ""]) == (1, 0)


def test_agreement_is_told_once_people_can_agree(database: Database) -> None:
    clock, queue = Clock(), ReviewQueue(database)
    filled(queue, [new_case(name, label, double=True) for name, label in (("a", "tools"), ("b", "books"))])
    assert ("agreement_alpha", "") not in Scrape(database, clock)()
    for person in (ANN, BOB):
        while (case := queue.claim(MODEL, person, clock.now)) is not None:
            queue.review(case.seat, person, Verdict.CONFIRM, None, clock.now)
    found = Scrape(database, clock)()
    assert (found["agreement_alpha", ""], found["agreement_cases", ""]) == (1, 2)


def test_a_database_that_is_gone_is_told_and_nothing_that_might_be_old(tmp_path: Path) -> None:
    file = tmp_path / "serving.db"
    database, clock = Database(f"sqlite:///{file}"), Clock()
    filled(ReviewQueue(database), [new_case("a")])
    scrape = Scrape(database, clock)
    assert scrape()["database_up", ""] == 1
    database.close()
    for each in tmp_path.iterdir():
        each.unlink()
    file.mkdir()
    assert scrape() == {("database_up", ""): 0.0}
    file.rmdir()


def test_the_database_is_not_asked_at_every_scrape(tmp_path: Path) -> None:
    database, clock = Database(f"sqlite:///{tmp_path}/serving.db"), Clock()
    queue, scrape = ReviewQueue(database), Scrape(database, clock)
    scrape()
    filled(queue, [new_case("a")])
    assert ("cases", "") not in scrape(timedelta(seconds=5))
    assert scrape(timedelta(seconds=30))["cases", ""] == 1
    database.close()


def test_every_name_is_told_and_no_other(database: Database) -> None:
    clock, queue = Clock(), ReviewQueue(database)
    filled(queue, [new_case(name, label, double=True) for name, label in (("a", "tools"), ("b", "books"))])
    for person in (ANN, BOB):
        while (case := queue.claim(MODEL, person, clock.now)) is not None:
            queue.review(case.seat, person, Verdict.CONFIRM, None, clock.now)
    assert {name for name, _ in Scrape(database, clock)()} == {name for name, _, _ in DECLARED}


def test_the_page_tells_it_on_a_port_of_its_own_and_not_to_visitors(tmp_path: Path) -> None:
    people(tmp_path, ("ann",))
    database = Database(f"sqlite:///{tmp_path}/serving/serving.db")
    filled(ReviewQueue(database), [new_case("a")])
    database.close()
    with served(tmp_path, "--metrics", "127.0.0.1:0") as server:
        assert server.metrics is not None
        with urllib.request.urlopen(server.metrics, timeout=30) as answer:
            assert samples(answer.read().decode())["open_cases", ""] == 1
        assert Client(server.url).get("/metrics").status == 404
