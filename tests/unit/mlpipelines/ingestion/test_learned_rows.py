"""Labelled predictions become rows to learn from, once each, and never rows that judge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingested_payments import DAY, Place, payments, project
from mlpipelines.artifacts import KEY, PREDICTIONS
from mlpipelines.errors import ConfigError
from mlpipelines.freshness import mark_of_labels
from mlpipelines.ingestion.manifest import DataManifest, learned_text
from mlpipelines.project import Project
from prediction_rows import NOON, a_label, a_prediction, write_labels, write_log

FEATURES = {"feature/merchant": pa.string(), "feature/amount": pa.float32()}
REVIEWED: dict[str, Any] = {"source": "review", "reviewer": "ann", "model": "payments"}


def asked(number: int, merchant: str = "KIOSK", amount: float = 3.5, **changes: Any) -> dict[str, Any]:
    """One prediction of the payments model, with all that it was asked."""
    features = {"feature/merchant": f"{merchant} {number}" if merchant == "KIOSK" else merchant, "feature/amount": amount}
    return a_prediction(number, model="payments", **features) | changes


def reviewed(number: int, label: str = "travel", **changes: Any) -> dict[str, Any]:
    return a_label(number, label, **REVIEWED) | changes


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def log(place: Place, *rows: dict[str, Any]) -> None:
    write_log(place.predictions, list(rows), FEATURES)


def learned(place: Place, split: str) -> list[dict[str, Any]]:
    """The rows of a split that are predictions."""
    files = [file for file in place.data.files(split) if file.parent.name == PREDICTIONS]  # type: ignore[arg-type]  # a test's own literal
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def left_out(manifest: DataManifest) -> dict[str, int]:
    found: dict[str, int] = manifest.predictions["left_out"]
    return found


def test_what_reviewers_said_is_learned_from_and_moves_no_row_of_the_source(place: Place) -> None:
    before = place.ingest(payments())
    log(place, *(asked(n) for n in range(60)))
    write_labels(place.predictions, [reviewed(n) for n in range(50)])
    after = place.ingest()
    rows = learned(place, "train") + learned(place, "validation")
    assert {row["merchant"] for row in rows} == {f"KIOSK {n}" for n in range(50)}
    assert {row["category"] for row in rows} == {"travel"}
    assert {row["booked"] for row in rows} == {int((NOON + timedelta(minutes=n)).timestamp()) for n in range(50)}
    assert rows[0]["customer"] is None, "nobody asks the model about it"
    assert after.rows["train"] + after.rows["validation"] == before.rows["train"] + before.rows["validation"] + 50
    for split, spans in before.spans.items():
        assert {name: after.spans[split][name] for name in spans} == dict(spans)
    assert after.predictions["from"] == {"reviewers": 50}
    assert after.predictions["train"] + after.predictions["validation"] == 50
    assert learned_text(after.predictions) == "50 predictions among them, 50 that reviewers labelled"
    assert learned_text(before.predictions) == ""


def test_the_same_labels_make_the_same_data_and_another_label_another(place: Place) -> None:
    log(place, *(asked(n) for n in range(20)))
    write_labels(place.predictions, [reviewed(n) for n in range(20)])
    first, mark = place.ingest(payments()), mark_of_labels(project(), place.predictions)
    assert place.ingest().content_hash == first.content_hash
    assert mark_of_labels(project(), place.predictions) == mark != ""
    sides = {row[KEY] for row in learned(place, "validation")}
    write_labels(place.predictions, [reviewed(3, "food", minutes=200) | {"received_at": reviewed(0, minutes=1)["received_at"] + 10**10}])
    again = place.ingest()
    assert again.content_hash != first.content_hash
    assert mark_of_labels(project(), place.predictions) != mark
    assert again.predictions["train"] + again.predictions["validation"] == 20, "the last label of a prediction counts, once"
    assert {row[KEY] for row in learned(place, "validation")} == sides, "its id alone says on which side it is"


def test_whoever_told_the_last_label_decides_whether_it_is_learned_from(place: Place) -> None:
    log(place, *(asked(n) for n in range(4)))
    later = {"received_at": a_label(0, minutes=500)["received_at"]}
    write_labels(place.predictions, [reviewed(0), reviewed(1), a_label(2, "food", model="payments")])
    write_labels(place.predictions, [a_label(1, "food", minutes=500, model="payments") | later])
    manifest = place.ingest(payments())
    assert (manifest.predictions["from"], left_out(manifest)) == ({"reviewers": 1}, {"told_by_others": 2})
    both = place.ingest(of=_learning("reviewers", "labels"))
    assert both.predictions["from"] == {"labels": 2, "reviewers": 1}
    assert place.ingest(of=_learning()).predictions == {}
    assert mark_of_labels(_learning(), place.predictions) == ""


def _learning(*whom: str, **changes: Any) -> Project:
    return project(source={"kind": "parquet", "path": "rows.parquet", "learn_from": list(whom)}, **changes)


def test_what_cannot_be_a_row_is_left_out_counted_and_told(place: Place) -> None:
    known = payments().to_pylist()[3]
    rows = [
        asked(0),
        asked(1) | {"feature/amount": None},  # too large, or its version had none
        asked(2),
        asked(3),
        asked(4, merchant=known["merchant"], amount=known["amount"]),
        asked(5),
    ]
    log(place, *rows, asked(0, track="shadow"))
    write_labels(place.predictions, [reviewed(n, "tarvel" if n == 2 else "travel") for n in range(5)])
    manifest = place.ingest(payments())
    sealed = set(pq.read_table(place.test.rows)["merchant"].to_pylist())
    assert left_out(manifest) == {
        "repeated": 1, "not_logged": 1, "unknown_class": 1, "sealed" if known["merchant"] in sealed else "in_source": 1
    }  # fmt: skip
    assert manifest.predictions["from"] == {"reviewers": 2}
    assert "1 labelled predictions name a class that no row of the source has: 'tarvel'" in manifest.warnings
    assert all("tarvel" not in span for span in manifest.classes)


def test_a_feature_that_is_not_logged_makes_predictions_useless_and_says_what_to_do(place: Place) -> None:
    write_log(
        place.predictions,
        [{k: v for k, v in asked(n).items() if k != "feature/amount"} for n in range(3)],
        {"feature/merchant": pa.string()},
    )
    write_labels(place.predictions, [reviewed(n) for n in range(3)])
    manifest = place.ingest(payments())
    assert left_out(manifest) == {"not_logged": 3}
    (warning,) = manifest.warnings
    assert "'amount' is not logged (deployment.log.features" in warning


def test_a_feature_that_is_a_list_in_one_version_stops_the_run_and_says_how_to_go_on(place: Place) -> None:
    log(place, asked(0))
    lists = FEATURES | {"feature/merchant": pa.list_(pa.string())}
    write_log(place.predictions, [asked(1, version=2) | {"feature/merchant": ["KIOSK"]}], lists)
    write_labels(place.predictions, [reviewed(0)])
    with pytest.raises(ConfigError, match=r"source\.learn_from: \[\]"):
        place.ingest(payments())
    assert place.ingest(of=_learning()).predictions == {}


def test_only_the_window_is_learned_from(place: Place) -> None:
    log(place, *(asked(n) for n in range(10)))
    write_labels(place.predictions, [reviewed(n) for n in range(10)])
    manifest = place.ingest(payments(), until=NOON + timedelta(minutes=4))
    assert (manifest.predictions["from"], left_out(manifest)) == ({"reviewers": 4}, {"outside_window": 6})
    assert place.ingest(since=datetime(2020, 1, 1, tzinfo=UTC)).predictions["from"] == {"reviewers": 10}


def test_predictions_keep_the_same_distance_from_the_sealed_days_as_the_source_s_rows(place: Place) -> None:
    apart = project(split={"by": "time", "test_from": "2020-02-15", "gap_days": 5})
    place.ingest(payments(600), apart)
    sealed = place.rows("test")["booked"]
    first, last = pc.min(sealed).as_py(), pc.max(sealed).as_py()
    log(place, *(asked(day, time=datetime(2020, 1, 20, 12, tzinfo=UTC) + timedelta(days=day)) for day in range(80)))
    write_labels(place.predictions, [reviewed(day) for day in range(80)])
    manifest = place.ingest(of=apart)
    times = [row["booked"] for split in ("train", "validation") for row in learned(place, split)]
    assert min(times) < first
    assert last < max(times)
    assert all(time <= first - 5 * DAY or time >= last + 5 * DAY for time in times)
    assert left_out(manifest) == {"near_sealed": 80 - len(times)}
    assert len(times) > 40


def test_a_group_stays_on_its_side_and_one_that_cannot_be_told_is_left_out(place: Place) -> None:
    split = {"by": "group", "group": "merchant"}
    rows = payments().set_column(2, "merchant", pa.array([f"SHOP {n % 50}" for n in range(1000)]))
    log(place, *(asked(n, merchant=f"SHOP {n % 60}", amount=1000.0 + n) for n in range(300)))
    write_labels(place.predictions, [reviewed(n) for n in range(300)])
    manifest = place.ingest(rows, project(split=split))
    sides = [set(place.rows(each)["merchant"].to_pylist()) for each in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60
    assert left_out(manifest)["sealed_group"] == 5 * len(sides[2])
    assert manifest.predictions["train"]
    unknown = Place(place.root / "other")
    unknown.root.mkdir()
    log(unknown, asked(0))
    write_labels(unknown.predictions, [reviewed(0)])
    assert left_out(unknown.ingest(payments(), project(split={"by": "group", "group": "customer"}))) == {"unknown_group": 1}


def test_flags_and_numbers_are_read_as_people_write_them(place: Place) -> None:
    told = ["yes", "0", "TRUE", "maybe", "1"]
    log(place, *(asked(n) for n in range(5)))
    write_labels(place.predictions, [reviewed(n, text) for n, text in enumerate(told)])
    flags = payments().append_column("fraud", pa.array([str(n % 2) for n in range(1000)]))
    manifest = place.ingest(flags, project(label={"column": "fraud", "kind": "flag"}, task="detection"))
    assert left_out(manifest) == {"unreadable": 1}
    assert sorted(row["fraud"] for row in learned(place, "train") + learned(place, "validation")) == ["0", "1", "1", "1"]
    numbers = Place(place.root / "numbers")
    numbers.root.mkdir()
    log(numbers, *(asked(n) for n in range(3)))
    write_labels(numbers.predictions, [reviewed(n, text) for n, text in enumerate(["12.5", "a lot", "nan"])])
    priced = payments().append_column("price", pa.array([float(n) for n in range(1000)]))
    manifest = numbers.ingest(priced, project(label={"column": "price", "kind": "number"}, task="regression"))
    assert left_out(manifest) == {"unreadable": 2}
    assert [row["price"] for row in learned(numbers, "train") + learned(numbers, "validation")] == [12.5]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    by=st.sampled_from([{"by": "row"}, {"by": "row", "stratify": "category"}, {"by": "time"}, {"by": "group", "group": "merchant"}]),
    keyed=st.booleans(),
    before=st.booleans(),
)
def test_no_prediction_ever_enters_the_sealed_test_set_and_none_that_is_in_it_is_learned_from(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, by: dict[str, Any], keyed: bool, before: bool
) -> None:
    """Whatever people label: rows of the source, rows that look like sealed ones, new ones; before the first run or after it."""
    place, source = Place(tmp_path_factory.mktemp("sealed")), payments(200)
    rows = source.to_pylist()
    shown = data.draw(st.lists(st.one_of(st.integers(0, 199), st.none()), min_size=1, max_size=60))
    predictions = [
        asked(n, merchant=f"NEW {n}" if at is None else rows[at]["merchant"], amount=1.0 if at is None else rows[at]["amount"])
        for n, at in enumerate(shown)
    ]
    of = project(split=by, key="id" if keyed else None)
    untouched = Place(tmp_path_factory.mktemp("untouched"))
    untouched.ingest(source, of)
    if not before:
        place.ingest(source, of)
    log(place, *predictions)
    labels = data.draw(st.lists(st.sampled_from(["food", "travel", "books"]), min_size=len(shown), max_size=len(shown)))
    write_labels(place.predictions, [reviewed(n, label) for n, label in enumerate(labels)])
    manifest = place.ingest(source, of)
    sealed = place.rows("test")
    assert sealed.equals(untouched.rows("test"))
    judged = {(row["merchant"], row["amount"]) for row in sealed.to_pylist()}
    trained = learned(place, "train") + learned(place, "validation")
    assert not judged & {(row["merchant"], row["amount"]) for row in trained}
    assert {row["merchant"] for row in trained} == {f"NEW {n}" for n, at in enumerate(shown) if at is None}
    assert len(trained) == sum(manifest.predictions["from"].values())
    assert manifest.predictions["labelled"] == len(trained) + sum(left_out(manifest).values())
