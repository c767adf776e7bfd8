"""From the prediction log to the queue and back to its labels, by the commands that people and CronJobs type."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlserving import store
from mlserving.errors import ConfigError, Conflict
from mlserving.predictions import reading
from mlserving.review.cases import Case, Person, Verdict
from mlserving.review.delivery import send_to
from mlserving.review.figures import figures
from mlserving.review.fill import Filled, Plan, fill
from mlserving.review.outbox import Outbox
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import ITEMS, Database
from prediction_rows import a_prediction, write_log
from review_site import command

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
MODEL = "transactions"
ANN = Person("ann")
TYPES = {
    "feature/merchant": pa.string(),
    "feature/amount": pa.float32(),
    "feature/tags": pa.list_(pa.string()),
    "output/scores": pa.list_(pa.float32()),
}


def rows(numbers: range, **changes: Any) -> list[dict[str, Any]]:
    """One prediction a second from eleven on, less and less certain."""
    return [
        a_prediction(
            number,
            **{
                "time": NOW - timedelta(hours=1) + timedelta(seconds=number),
                "label": ("food", "travel", "tools")[number % 3],
                "confidence": 1 - number / 10_000,
                "feature/merchant": f"SHOP {number}",
                "feature/amount": number / 2,
                "feature/tags": ["a", "b"],
                "output/scores": [0.5, 0.1 + number / 10_000, 0.0],
                **changes,
            },
        )
        for number in numbers
    ]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "serving").mkdir()
    database = Database(f"sqlite:///{tmp_path}/serving/serving.db")
    yield database
    database.close()


Fill = Callable[..., Filled]


@pytest.fixture
def filling(database: Database, tmp_path: Path) -> Fill:
    def filled(plan: Plan | None = None, now: datetime = NOW, waiting: int = 0, **more: Any) -> Filled:
        return fill(ReviewQueue(database), tmp_path / "predictions", MODEL, plan or Plan(), now, waiting=waiting, **more)

    return filled


def cases(database: Database, now: datetime = NOW) -> dict[str, Case]:
    """All that is in the queue, by prediction."""
    found: dict[str, Case] = {}
    queue = ReviewQueue(database)
    while (case := queue.claim(MODEL, Person(f"p{len(found)}"), now)) is not None:
        found[f"{case.prediction_id}/{case.row}"] = case
    return found


def test_what_was_predicted_is_shown_as_the_log_holds_it(filling: Fill, database: Database, tmp_path: Path) -> None:
    write_log(tmp_path / "predictions", rows(range(3)), TYPES)
    done = filling()
    assert (done.read, done.added, done.until) == (3, 3, NOW - timedelta(minutes=2))
    case = cases(database)["id-1/0"]
    assert case.features == {"merchant": "SHOP 1", "amount": 0.5, "tags": ["a", "b"]}
    assert (case.label, case.version) == ("travel", 1)
    assert case.confidence == pytest.approx(0.9999)


def test_nobody_reviews_a_case_again_because_somebody_asked_why(filling: Fill, database: Database, tmp_path: Path) -> None:
    write_log(tmp_path / "predictions", rows(range(3)), TYPES)
    explained = [row | {"prediction_id": f"why-{row['prediction_id']}"} for row in rows(range(3), signature="explain")]
    write_log(tmp_path / "predictions", explained, TYPES | {"output/explained_by": pa.list_(pa.string())})
    assert filling().read == 3
    assert set(cases(database)) == {"id-0/0", "id-1/0", "id-2/0"}


def test_values_that_json_does_not_know_are_shown_all_the_same(filling: Fill, database: Database, tmp_path: Path) -> None:
    odd = {"feature/raw": b"caf\xe9\x00", "feature/number": float("nan"), "feature/day": NOW, "feature/gone": None}
    kinds = {
        "feature/raw": pa.binary(),
        "feature/number": pa.float64(),
        "feature/day": pa.timestamp("us", "UTC"),
        "feature/gone": pa.string(),
    }
    write_log(tmp_path / "predictions", [a_prediction(0, time=NOW - timedelta(hours=1)) | odd], kinds)
    filling()
    (case,) = cases(database).values()
    assert case.features == {"raw": "caf\ufffd\ufffd", "number": "nan", "day": "2026-11-02 12:00:00+00:00", "gone": None}


def test_each_run_goes_on_where_the_last_one_ended(filling: Fill, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    write_log(predictions, rows(range(10)), TYPES)
    first = filling()
    write_log(predictions, rows(range(10, 20), time=NOW + timedelta(minutes=10)), TYPES)
    second = filling(now=NOW + timedelta(hours=1))
    assert (first.read, second.read, second.since) == (10, 10, first.until)
    assert {choice.candidate.key for choice in first.choices}.isdisjoint(choice.candidate.key for choice in second.choices)
    assert filling(now=NOW + timedelta(hours=1)).why_none is not None


def test_what_the_recorder_may_still_be_writing_waits_for_the_next_run(filling: Fill, tmp_path: Path) -> None:
    write_log(tmp_path / "predictions", rows(range(5), time=NOW - timedelta(seconds=100)), TYPES)
    assert filling().read == 0
    assert filling(now=NOW + timedelta(minutes=1)).read == 5


def test_a_days_capacity_is_never_exceeded_however_often_it_runs(filling: Fill, database: Database, tmp_path: Path) -> None:
    for hour in range(6):
        write_log(tmp_path / "predictions", rows(range(hour * 100, hour * 100 + 100), time=NOW + timedelta(hours=hour)), TYPES)
        filling(Plan(capacity=20), now=NOW + timedelta(hours=hour, minutes=30))
    assert ReviewQueue(database).asked_since(MODEL, NOW) <= 20
    tomorrow = filling(Plan(capacity=20), now=NOW + timedelta(hours=20))
    assert tomorrow.read >= 400, "what found no room yesterday is looked through today"
    assert tomorrow.added > 0


def test_several_runs_a_day_share_the_capacity(filling: Fill, tmp_path: Path) -> None:
    plan, added = Plan(capacity=24, runs=24), []
    for hour in range(4):
        write_log(tmp_path / "predictions", rows(range(hour * 100, hour * 100 + 100), time=NOW + timedelta(hours=hour)), TYPES)
        added.append(filling(plan, now=NOW + timedelta(hours=hour, minutes=30)).added)
    assert added[0] <= 13
    assert sum(added) <= 16


def test_nothing_is_added_while_people_are_behind_and_nothing_is_left_out(filling: Fill, tmp_path: Path) -> None:
    write_log(tmp_path / "predictions", rows(range(50)), TYPES)
    assert "people are behind" in (filling(Plan(most_waiting=30), waiting=30).why_none or "")
    assert filling(Plan(most_waiting=30), waiting=5).read == 50


def test_shadow_answers_and_answers_without_a_class_are_not_reviewed(filling: Fill, tmp_path: Path) -> None:
    write_log(tmp_path / "predictions", rows(range(3), track="shadow", version=2), TYPES)
    write_log(tmp_path / "predictions", rows(range(3, 6), label=None), TYPES)
    write_log(tmp_path / "predictions", rows(range(6, 8)), TYPES)
    assert filling().read == 2


def test_the_margin_of_the_scores_may_count_in_place_of_the_confidence(filling: Fill, tmp_path: Path) -> None:
    write_log(tmp_path / "predictions", rows(range(1000)), TYPES)
    done = filling(Plan(capacity=10, margin="scores"))
    uncertain = [choice.candidate for choice in done.choices if choice.why == "uncertain"]
    assert {row.prediction_id for row in uncertain} == {f"id-{number}" for number in range(1000 - len(uncertain), 1000)}
    with pytest.raises(ConfigError, match=r"no output 'score'\. It has: scores"):
        filling(Plan(margin="score"), now=NOW + timedelta(days=1))


def test_who_comes_second_leaves_the_firsts_choice(
    filling: Fill, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have read the same stretch; the second one finds it taken when it wants to write."""
    write_log(tmp_path / "predictions", rows(range(20)), TYPES)
    real = ReviewQueue.put

    def late(queue: ReviewQueue, *arguments: Any) -> int:
        monkeypatch.setattr(ReviewQueue, "put", real)
        filling()
        return real(queue, *arguments)

    monkeypatch.setattr(ReviewQueue, "put", late)
    with pytest.raises(Conflict):
        filling()
    assert figures(database, MODEL, NOW).cases == 20


def test_classes_come_from_the_log_and_from_what_versions_answered_before(filling: Fill, database: Database, tmp_path: Path) -> None:
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    feature = statistics.datasets.add(name="predictions").features.add(name="label")
    feature.string_stats.rank_histogram.buckets.add(label="seldom seen")
    path = tmp_path / "models" / MODEL / "1" / store.TRAINING_STATISTICS
    path.parent.mkdir(parents=True)
    path.write_bytes(statistics.SerializeToString())
    write_log(tmp_path / "predictions", rows(range(3)), TYPES)
    filling(models=tmp_path / "models")
    assert ReviewQueue(database).classes(MODEL) == ["food", "seldom seen", "tools", "travel"]


def test_a_review_becomes_a_label_beside_its_prediction(filling: Fill, database: Database, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    write_log(predictions, rows(range(2)), TYPES)
    filling()
    queue = ReviewQueue(database)
    case = queue.claim(MODEL, ANN, NOW)
    assert case is not None
    queue.review(case.seat, ANN, Verdict.CORRECT, "books", NOW)
    send = send_to(predictions)

    def twice(parcel: Any) -> None:
        send(parcel)
        send(parcel)

    assert Outbox(database).deliver(twice, NOW + timedelta(minutes=1)) == 1
    (joined,) = [row for batch in reading.joined(predictions, MODEL) for row in batch.to_pylist()]
    assert (joined["prediction_id"], joined["truth"], joined["label_source"], joined["reviewer"]) == (
        case.prediction_id,
        "books",
        "review",
        "ann",
    )
    assert (joined["labelled_at"], joined["received_at"]) == (NOW, NOW + timedelta(minutes=1))


def test_of_two_labels_the_later_one_counts_even_if_the_first_is_sent_again(filling: Fill, database: Database, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    write_log(predictions, rows(range(1)), TYPES)
    filling()
    queue, send, sent = ReviewQueue(database), send_to(predictions), []
    case = queue.claim(MODEL, ANN, NOW)
    assert case is not None

    def remembered(parcel: Any) -> None:
        sent.append(parcel)
        send(parcel)

    for minute, label in ((1, "books"), (2, "travel")):
        queue.review(case.seat, ANN, Verdict.CORRECT, label, NOW + timedelta(minutes=minute))
        Outbox(database).deliver(remembered, NOW + timedelta(minutes=minute + 1))
        queue.undo(MODEL, ANN, NOW + timedelta(minutes=minute + 1))
    send(sent[0])
    assert reading.last_labels(predictions, MODEL)["label"].to_pylist() == ["travel"]


# -- the command ---------------------------------------------------------------------------------------------------------------


def said(workspace: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = command(workspace, *arguments)
    assert done.returncode == code, done.stderr
    return done


def test_the_command_fills_says_what_waits_and_forgets(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    write_log(tmp_path / "predictions", rows(range(20), time=now - timedelta(minutes=10)), TYPES)
    (tmp_path / "serving").mkdir()
    assert (
        "20 are to be reviewed" in said(tmp_path, "fill", MODEL, "--since", (now - timedelta(hours=1)).isoformat(), "--double", "0").stdout
    )
    assert "20 of 20 cases are open" in said(tmp_path, "status", MODEL).stdout
    assert json.loads(said(tmp_path, "status", MODEL, "--json").stdout)["open_cases"] == 20
    assert "features of 1 cases" in said(tmp_path, "forget", MODEL, "--prediction-id", "id-7").stdout
    assert json.loads(said(tmp_path, "status", MODEL, "--json").stdout)["open_cases"] == 19
    assert "features of 20 cases" in said(tmp_path, "forget", MODEL, "--older-than", "0").stdout
    assert json.loads(said(tmp_path, "status", MODEL, "--json").stdout)["open_cases"] == 0
    database = Database(f"sqlite:///{tmp_path}/serving/serving.db")
    with database.transaction() as connection:
        assert set(map(str, connection.execute(select(ITEMS.c.features)).scalars())) == {"{}"}
    database.close()


def test_users_are_made_by_the_command_and_their_tokens_are_kept_nowhere(tmp_path: Path) -> None:
    token = said(tmp_path, "add-user", "ann", "--role", "lead").stdout.strip()
    assert len(token) >= 24
    file = tmp_path / "serving" / "review-users.json"
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "--reset" in said(tmp_path, "add-user", "ann", code=5).stderr
    assert said(tmp_path, "add-user", "ann", "--reset").stdout.strip() != token
    assert "ann  reviewer" in said(tmp_path, "users").stdout
    assert "cannot name a user" in said(tmp_path, "add-user", "a b", code=2).stderr
    said(tmp_path, "remove-user", "ann")
    assert "nobody" in said(tmp_path, "remove-user", "ann", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["serve"], "add-user"),
        (["serve", "--proxy-header", "X-Email"], "Anybody could write that header"),
        (["serve", "--proxy-header", "X-Email", "--proxy-address", "nowhere"], "--proxy-address"),
        (["serve", "--proxy-address", "10.0.0.0/8"], "--proxy-header"),
        (["fill", "nothing"], "no log of 'nothing'"),
        (["forget", "m"], "--older-than"),
    ],
)
def test_a_wrong_argument_is_answered_with_what_to_type(tmp_path: Path, arguments: list[str], what: str) -> None:
    assert what in said(tmp_path, *arguments, code=2).stderr


def published(workspace: Path, version: int, review: str) -> None:
    """A version of the model that carries how much of it people look at."""
    folder = workspace / "models" / MODEL / str(version)
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    (folder / store.REVIEW_SETTINGS).write_text(review)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([], "10 are to be reviewed (10 random; 0 of them by two people)"),
        (["--capacity", "4", "--random", "0"], "4 are to be reviewed (4 uncertain; 0 of them by two people)"),
    ],
)
def test_the_newest_version_says_how_much_people_look_at_and_options_change_it(tmp_path: Path, options: list[str], chosen: str) -> None:
    write_log(tmp_path / "predictions", rows(range(60), time=datetime.now(UTC) - timedelta(minutes=10)), TYPES)
    published(tmp_path, 9, '{"capacity": 2}')
    published(tmp_path, 10, '{"capacity": 10, "random": 1.0, "double": 0.0, "minimum": 0}')
    assert chosen in said(tmp_path, "fill", MODEL, *options).stdout


def test_a_review_section_that_is_damaged_is_named_with_its_field(tmp_path: Path) -> None:
    write_log(tmp_path / "predictions", rows(range(5)), TYPES)
    published(tmp_path, 1, '{"capacity": 0}')
    refused = said(tmp_path, "fill", MODEL, code=2)
    assert f"models/{MODEL}/1/assets.extra/review.json: capacity" in refused.stderr
    assert "docs/review.md" in refused.stderr
