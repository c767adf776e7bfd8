"""What holds of the review queue, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from threading import Barrier

import pytest
import sqlalchemy.exc
from sqlalchemy import delete, select, text, update

from mlserving.errors import ConfigError, Conflict, Unavailable
from mlserving.review.cases import Case, Person, Verdict
from mlserving.review.figures import figures
from mlserving.review.outbox import Outbox, Parcel
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import REVIEWS, Database
from review_cases import MODEL, NOON, filled, new_case

ANN, BOB, EVE, LEAD = Person("ann"), Person("bob"), Person("eve"), Person("lead", lead=True)
LATER = NOON + timedelta(minutes=1)
AFTER_LEASE = NOON + timedelta(minutes=16)


Connect = Callable[[], Database]


@pytest.fixture
def connect(database_url: str) -> Iterator[Connect]:
    """Each call is another program at the same database."""
    with ExitStack() as stack:

        def another() -> Database:
            database = Database(database_url)
            stack.callback(database.close)
            return database

        yield another


@pytest.fixture
def database(connect: Connect) -> Database:
    return connect()


@pytest.fixture
def queue(database: Database) -> ReviewQueue:
    return ReviewQueue(database)


def taken(queue: ReviewQueue, person: Person, now: object = NOON) -> Case:
    case = queue.claim(MODEL, person, now)  # type: ignore[arg-type]
    assert case is not None
    return case


def says(queue: ReviewQueue, person: Person, verdict: Verdict = Verdict.CONFIRM, label: str | None = None) -> Case:
    case = taken(queue, person)
    queue.review(case.seat, person, verdict, label, LATER)
    return case


def delivered(database: Database, hours: int = 1) -> list[tuple[str, str, str]]:
    parcels: list[Parcel] = []
    Outbox(database).deliver(parcels.append, NOON + timedelta(hours=hours))
    return [(label.prediction_id, label.label, label.reviewer) for parcel in parcels for label in parcel.labels]


# -- cases come in ---------------------------------------------------------------------------------------------------------


def test_a_case_shows_what_the_log_held(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1", "tools", features={"merchant": "Ünïcode ☃", "tags": ["a", "b"], "amount": -1.25}, confidence=0.25)])
    case = taken(queue, ANN)
    assert (case.prediction_id, case.row, case.version, case.label, case.confidence) == ("p1", 0, 3, "tools", 0.25)
    assert case.features == {"merchant": "Ünïcode ☃", "tags": ["a", "b"], "amount": -1.25}
    assert (case.time, case.until) == (NOON - timedelta(hours=1), NOON + timedelta(minutes=15))


def test_a_batch_is_looked_through_once(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1")])
    with pytest.raises(Conflict, match="millrace review status"):
        filled(queue, [new_case("p2")])
    assert queue.left(MODEL, ANN, NOON) == 1
    assert queue.looked_until(MODEL) == NOON
    assert filled(queue, [new_case("p1"), new_case("p2")], since=NOON) == 1, "what is there already is not put in again"


def test_replicas_that_fill_at_the_same_time_put_everything_in_once(connect: Connect) -> None:
    queues = [ReviewQueue(connect()) for _ in range(6)]
    start = Barrier(6)

    def fill(queue: ReviewQueue) -> int:
        start.wait()
        try:
            return filled(queue, [new_case(f"p{n}") for n in range(20)])
        except Conflict:
            return 0

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(fill, queues)) == [0, 0, 0, 0, 0, 20]


def test_asked_reviews_count_double_ones_twice(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1"), new_case("p2", double=True)])
    assert queue.asked_since(MODEL, NOON) == 3
    assert queue.asked_since(MODEL, LATER) == 0


# -- people look -----------------------------------------------------------------------------------------------------------


def test_twenty_people_at_once_get_twenty_different_cases(connect: Connect) -> None:
    queues = [ReviewQueue(connect()) for _ in range(20)]
    filled(queues[0], [new_case(f"p{n}") for n in range(50)])
    start = Barrier(20)

    def work(number: int) -> list[str]:
        person = Person(f"person{number}")
        start.wait()
        found = []
        while (case := queues[number].claim(MODEL, person, NOON)) is not None:
            queues[number].review(case.seat, person, Verdict.CONFIRM, None, LATER)
            found.append(case.prediction_id)
        return found

    with ThreadPoolExecutor(20) as pool:
        found = [name for names in pool.map(work, range(20)) for name in names]
    assert Counter(found) == Counter(f"p{n}" for n in range(50))


def test_twenty_people_at_once_hold_disjoint_cases(connect: Connect) -> None:
    queues = [ReviewQueue(connect()) for _ in range(20)]
    filled(queues[0], [new_case(f"p{n}", double=n < 5) for n in range(18)])
    start = Barrier(20)

    def claim(number: int) -> Case | None:
        start.wait()
        return queues[number].claim(MODEL, Person(f"person{number}"), NOON)

    with ThreadPoolExecutor(20) as pool:
        cases = list(pool.map(claim, range(20)))
    assert len({case.seat for case in cases if case}) == 20
    assert max(Counter(case.prediction_id for case in cases if case).values()) <= 2


def test_one_person_in_many_tabs_never_sits_twice_at_one_case(connect: Connect) -> None:
    queues = [ReviewQueue(connect()) for _ in range(8)]
    filled(queues[0], [new_case(f"p{n}", double=True) for n in range(6)])
    start = Barrier(8)

    def claim(queue: ReviewQueue) -> Case | None:
        start.wait()
        return queue.claim(MODEL, ANN, NOON)

    with ThreadPoolExecutor(8) as pool:
        cases = {case.seat: case.prediction_id for case in pool.map(claim, queues) if case}
    assert len(set(cases.values())) == len(cases)


def test_who_comes_back_gets_the_case_that_they_hold(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1"), new_case("p2")])
    first = taken(queue, ANN)
    again = taken(queue, ANN, LATER)
    assert (again.seat, again.until) == (first.seat, LATER + timedelta(minutes=15))


def test_a_case_that_nobody_came_back_to_goes_to_somebody_else(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1")])
    held = taken(queue, ANN)
    assert queue.claim(MODEL, BOB, NOON) is None
    assert taken(queue, BOB, AFTER_LEASE).seat == held.seat
    with pytest.raises(Conflict, match="Nothing was saved"):
        queue.review(held.seat, ANN, Verdict.CONFIRM, None, AFTER_LEASE)


def test_who_is_late_but_not_replaced_may_still_say_it(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1")])
    held = taken(queue, ANN)
    assert queue.review(held.seat, ANN, Verdict.CONFIRM, None, AFTER_LEASE) is Verdict.CONFIRM


def test_nobody_reviews_from_anothers_seat(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1")])
    held = taken(queue, ANN)
    with pytest.raises(Conflict):
        queue.review(held.seat, BOB, Verdict.CONFIRM, None, LATER)
    with pytest.raises(Conflict):
        queue.review(10_000, BOB, Verdict.CONFIRM, None, LATER)


def test_a_double_case_goes_to_two_different_people_and_to_no_third(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1", double=True)])
    says(queue, ANN)
    assert queue.claim(MODEL, ANN, NOON) is None
    says(queue, BOB)
    assert queue.claim(MODEL, EVE, NOON) is None


def test_what_was_skipped_comes_back_to_others_only(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1"), new_case("p2")])
    first = says(queue, ANN, Verdict.SKIP)
    second = taken(queue, ANN)
    assert second.prediction_id != first.prediction_id
    assert taken(queue, BOB).prediction_id == first.prediction_id
    assert queue.left(MODEL, ANN, LATER) == 1


def test_saying_the_same_twice_is_saying_it_once(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1")])
    case = says(queue, ANN)
    queue.review(case.seat, ANN, Verdict.CONFIRM, None, LATER)
    with pytest.raises(Conflict, match="otherwise"):
        queue.review(case.seat, ANN, Verdict.CORRECT, "books", LATER)
    assert delivered(database) == [("p1", "tools", "ann")]


def test_a_correction_names_a_class(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1")])
    case = taken(queue, ANN)
    for label in (None, "", "  ", "x" * 201):
        with pytest.raises(ConfigError, match="Name the right class"):
            queue.review(case.seat, ANN, Verdict.CORRECT, label, LATER)
    assert queue.review(case.seat, ANN, Verdict.CORRECT, "  fine   art ", LATER) is Verdict.CORRECT
    assert delivered(database) == [("p1", "fine art", "ann")]
    assert "fine art" in queue.classes(MODEL)


def test_a_correction_to_what_was_predicted_confirms_it(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1")])
    assert queue.review(taken(queue, ANN).seat, ANN, Verdict.CORRECT, "tools", LATER) is Verdict.CONFIRM


# -- taking back -----------------------------------------------------------------------------------------------------------


def test_undo_gives_the_case_back_and_its_label_never_leaves(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1"), new_case("p2")])
    case = says(queue, ANN, Verdict.CORRECT, "books")
    taken(queue, ANN)
    assert queue.undo(MODEL, ANN, LATER)
    assert taken(queue, ANN, LATER).seat == case.seat
    assert queue.done_since(MODEL, ANN, NOON) == 0
    assert delivered(database) == []
    queue.review(case.seat, ANN, Verdict.CONFIRM, None, LATER)
    assert delivered(database) == [("p1", "tools", "ann")]


def test_a_label_that_has_left_is_followed_by_the_one_that_counts(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1")])
    case = says(queue, ANN, Verdict.CORRECT, "books")
    assert delivered(database) == [("p1", "books", "ann")]
    assert queue.undo(MODEL, ANN, LATER)
    queue.review(case.seat, ANN, Verdict.CORRECT, "travel", LATER + timedelta(minutes=2))
    assert delivered(database, hours=2) == [("p1", "travel", "ann")]


def test_several_reviews_are_taken_back_from_the_last_on_and_only_ones_own(queue: ReviewQueue) -> None:
    filled(queue, [new_case(f"p{n}") for n in range(4)])
    first, second = says(queue, ANN), says(queue, ANN)
    says(queue, BOB)
    assert queue.undo(MODEL, ANN, LATER)
    assert taken(queue, ANN).seat == second.seat
    assert queue.undo(MODEL, ANN, LATER)
    assert taken(queue, ANN).seat == first.seat
    assert not queue.undo(MODEL, ANN, LATER)
    assert queue.done_since(MODEL, BOB, NOON) == 1


def test_what_was_done_long_ago_is_not_taken_back(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1")])
    says(queue, ANN)
    assert not queue.undo(MODEL, ANN, NOON + timedelta(hours=13))


def test_what_people_did_can_neither_be_changed_nor_deleted(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1")])
    says(queue, ANN, Verdict.CORRECT, "books")
    queue.undo(MODEL, ANN, LATER)
    for statement in (update(REVIEWS).values(reviewer="bob"), delete(REVIEWS)):
        with pytest.raises(sqlalchemy.exc.SQLAlchemyError, match="append-only"), database.transaction() as connection:
            connection.execute(statement)
    with database.transaction() as connection:
        rows = connection.execute(select(REVIEWS.c.reviewer, REVIEWS.c.verdict, REVIEWS.c.label, REVIEWS.c.seconds).order_by(REVIEWS.c.id))
        assert [tuple(row) for row in rows] == [("ann", "correct", "books", 60.0), ("ann", "undo", None, 0.0)]


# -- people disagree ---------------------------------------------------------------------------------------------------------


def test_a_lead_settles_what_two_people_see_differently(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1", double=True)])
    says(queue, ANN)
    says(queue, BOB, Verdict.CORRECT, "books")
    assert queue.claim(MODEL, EVE, NOON) is None, "reviewers do not settle"
    case = says(queue, LEAD, Verdict.CORRECT, "books")
    assert case.settles
    assert [(opinion.reviewer, opinion.label) for opinion in case.opinions] == [("ann", "tools"), ("bob", "books")]
    assert delivered(database)[-1] == ("p1", "books", "lead")
    with pytest.raises(Conflict, match="settled"):
        queue.undo(MODEL, ANN, LATER)


def test_a_lead_settles_what_somebody_is_unsure_of_and_no_label_leaves_before(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1")])
    says(queue, ANN, Verdict.UNSURE)
    assert delivered(database) == []
    says(queue, LEAD, Verdict.CORRECT, "travel")
    assert delivered(database) == [("p1", "travel", "lead")]


def test_a_lead_does_not_settle_their_own_case(queue: ReviewQueue) -> None:
    filled(queue, [new_case("p1")])
    says(queue, LEAD, Verdict.UNSURE)
    assert queue.claim(MODEL, LEAD, NOON) is None
    assert taken(queue, Person("other", lead=True)).settles


def test_nothing_is_left_to_settle_once_somebody_changed_their_mind(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1", double=True)])
    says(queue, ANN)
    case = says(queue, BOB, Verdict.CORRECT, "books")
    queue.undo(MODEL, BOB, LATER)
    queue.review(case.seat, BOB, Verdict.CONFIRM, None, LATER)
    assert queue.claim(MODEL, LEAD, NOON) is None
    assert figures(database, MODEL, LATER).open_cases == 0


def test_two_people_who_disagree_at_the_same_moment_call_a_lead(connect: Connect) -> None:
    queues = [ReviewQueue(connect()) for _ in range(2)]
    filled(queues[0], [new_case(f"p{n}", double=True) for n in range(10)])
    start = Barrier(2)

    def work(number: int) -> None:
        person = (ANN, BOB)[number]
        for _ in range(10):
            case = taken(queues[number], person)
            start.wait()
            queues[number].review(case.seat, person, *((Verdict.CONFIRM, None), (Verdict.CORRECT, "books"))[number], LATER)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert queues[0].left(MODEL, LEAD, NOON) == 10


# -- labels leave ------------------------------------------------------------------------------------------------------------


def test_labels_wait_a_little_before_they_leave(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1")])
    says(queue, ANN)
    sent: list[Parcel] = []
    assert Outbox(database).deliver(sent.append, LATER + timedelta(seconds=29)) == 0
    assert Outbox(database).deliver(sent.append, LATER + timedelta(seconds=30)) == 1
    assert Outbox(database).waiting() == 0


def test_a_parcel_that_did_not_arrive_is_sent_again_as_it_was(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1"), new_case("p2")])
    says(queue, ANN)
    sent: list[Parcel] = []

    def lose(parcel: Parcel) -> None:
        sent.append(parcel)
        raise Unavailable("disk full")

    with pytest.raises(Unavailable):
        Outbox(database).deliver(lose, NOON + timedelta(hours=1))
    says(queue, ANN)
    assert Outbox(database).waiting(MODEL) == 2
    again: list[Parcel] = []
    assert Outbox(database).deliver(again.append, NOON + timedelta(hours=2)) == 2
    assert again[0] == sent[0]
    assert [label.prediction_id for parcel in again for label in parcel.labels] == ["p1", "p2"]


def test_a_label_on_its_way_is_not_taken_out_by_undo(queue: ReviewQueue, database: Database) -> None:
    """It may have arrived without our having heard; the label that follows it counts."""
    filled(queue, [new_case("p1")])
    says(queue, ANN)

    def lose(_parcel: Parcel) -> None:
        raise Unavailable("no answer")

    with pytest.raises(Unavailable):
        Outbox(database).deliver(lose, NOON + timedelta(hours=1))
    queue.undo(MODEL, ANN, LATER)
    assert delivered(database) == [("p1", "tools", "ann")]


def test_several_who_deliver_at_once_send_the_same_parcels(connect: Connect) -> None:
    database = connect()
    queue = ReviewQueue(database)
    filled(queue, [new_case(f"p{n}") for n in range(30)])
    for _ in range(30):
        says(queue, ANN)
    outboxes = [Outbox(connect()) for _ in range(4)]
    sent: list[Parcel] = []
    start = Barrier(4)

    def deliver(outbox: Outbox) -> int:
        start.wait()
        return outbox.deliver(sent.append, NOON + timedelta(hours=1))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(deliver, outboxes)) == 30
    assert len({parcel.name for parcel in sent}) == 1
    assert all(parcel.labels == sent[0].labels for parcel in sent)


# -- what is known -------------------------------------------------------------------------------------------------------------


def test_figures_say_what_waits_who_did_what_and_how_far_they_agree(queue: ReviewQueue, database: Database) -> None:
    filled(queue, [new_case("p1", double=True), new_case("p2", "books"), new_case("p3")])
    says(queue, ANN)
    says(queue, ANN, Verdict.CORRECT, "travel")
    says(queue, BOB)
    taken(queue, BOB)
    found = figures(database, MODEL, LATER)
    assert (found.cases, found.open_cases, found.open_reviews, found.held, found.for_a_lead, found.overdue) == (3, 1, 1, 1, 0, 0)
    assert found.oldest == NOON
    assert [(each.reviewer, each.confirmed, each.corrected, each.unsure, each.seconds) for each in found.people] == [
        ("ann", 1, 1, 0, 60.0), ("bob", 1, 0, 0, 60.0),
    ]  # fmt: skip
    assert (found.alpha.n, found.kappas["ann", "bob"].n) == (1, 1)
    assert {label: (share.value, share.n) for label, share in found.confirmed.items()} == {"books": (0.0, 1), "tools": (1.0, 1)}
    assert found.undelivered == 3


def test_a_model_that_nobody_filled_has_empty_figures(database: Database) -> None:
    found = figures(database, "nothing", NOON)
    assert (found.cases, found.open_cases, found.oldest, found.accuracy, found.alpha.value) == (0, 0, None, None, None)


def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(Unavailable, match="MILLRACE_DATABASE") as refused:
        Database("postgresql://user:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)
    for url in ("nonsense", "mysql://x/y"):
        with pytest.raises(ConfigError, match="MILLRACE_DATABASE"):
            Database(url)


def test_tables_that_are_there_are_used_as_they_are(connect: Connect) -> None:
    filled(ReviewQueue(connect()), [new_case("p1")])
    again = connect()
    assert ReviewQueue(again).left(MODEL, ANN, NOON) == 1
    with again.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM review_items")).scalar_one() == 1
