"""What readers of the log and the labels see: windows, versions with other columns, and the last label beside each prediction."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserving.errors import Conflict, Unavailable
from mlserving.predictions import files, reading
from mlserving.predictions.files import Window
from mlserving.predictions.label_journal import JOURNAL, Journal
from mlserving.predictions.reading import joined, labels, last_labels, log
from mlserving.predictions.records import PREDICTION_FIELDS
from mlserving.predictions.upkeep import keep_up
from prediction_rows import NOON, a_label, a_prediction, write_labels, write_log


def truths(predictions: Path, **options: Any) -> dict[str, str | None]:
    rows = [row for batch in joined(predictions, "transactions", **options) for row in batch.to_pylist()]
    found = {row["prediction_id"]: row["truth"] for row in rows}
    assert len(found) == len(rows), "a prediction came twice"
    return found


def test_a_window_takes_its_start_and_not_its_end_over_the_day_s_boundary(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(number) for number in range(0, 720, 60)])
    write_log(tmp_path, [a_prediction(number) for number in range(720, 1440, 60)])
    window = Window(start=NOON + timedelta(hours=11), end=NOON + timedelta(hours=14))
    assert sorted(log(tmp_path, "transactions", window).table(["prediction_id"])["prediction_id"].to_pylist()) == [
        "id-660",
        "id-720",
        "id-780",
    ]


def test_no_log_is_an_empty_log_with_the_columns_that_every_log_has(tmp_path: Path) -> None:
    rows = log(tmp_path, "transactions")
    assert rows.schema == PREDICTION_FIELDS
    assert (rows.count(), rows.table().num_rows, list(joined(tmp_path, "transactions"))) == (0, 0, [])


def test_a_column_that_a_version_does_not_have_is_null_and_a_narrower_type_is_widened(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1, **{"feature/amount": 1.5})], {"feature/amount": pa.float32()})
    write_log(
        tmp_path,
        [a_prediction(2, version=2, **{"feature/amount": 2.25, "feature/code": "x"})],
        {"feature/amount": pa.float64(), "feature/code": pa.string()},
    )
    rows = log(tmp_path, "transactions").table().sort_by("version")
    assert rows["feature/amount"].to_pylist() == [1.5, 2.25]
    assert rows["feature/code"].to_pylist() == [None, "x"]


def test_a_number_in_one_version_and_a_text_in_another_are_both_text(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1, **{"feature/code": 7})], {"feature/code": pa.int64()})
    write_log(tmp_path, [a_prediction(2, version=2, **{"feature/code": "x"})], {"feature/code": pa.string()})
    assert sorted(log(tmp_path, "transactions").table()["feature/code"].to_pylist()) == ["7", "x"]


def test_a_list_in_one_version_and_a_scalar_in_another_are_read_one_version_at_a_time(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1, **{"feature/code": [7]})], {"feature/code": pa.list_(pa.int64())})
    write_log(tmp_path, [a_prediction(2, version=2, **{"feature/code": 8})], {"feature/code": pa.int64()})
    with pytest.raises(Conflict, match="feature/code is "):
        log(tmp_path, "transactions")
    assert log(tmp_path, "transactions", versions=[2]).table()["feature/code"].to_pylist() == [8]


def test_a_filter_is_added_later_and_narrows(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(number, version=number % 2 + 1, track="canary" if number > 5 else "stable") for number in range(10)])
    rows = log(tmp_path, "transactions", versions=[2]).where(ds.field("track") == "canary")
    assert sorted(rows.table(["prediction_id"])["prediction_id"].to_pylist()) == ["id-7", "id-9"]
    assert rows.count() == 2


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from(["rest", "grpc", "batch"])), max_size=20))
@settings(max_examples=25, deadline=None)
def test_a_case_counts_once_however_often_somebody_asked_why(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, bool, str]]
) -> None:
    predictions, why = tmp_path_factory.mktemp("asked"), []
    for count, (number, same_id, protocol) in enumerate(asked):  # under the prediction's id or, as `millrace predict` does, another
        changes = {"signature": "explain", "protocol": protocol, "output/base_score": 0.5}
        why.append(a_prediction(number, **changes) | ({} if same_id else {"prediction_id": f"why-{count}"}))
    write_log(predictions, [*(a_prediction(number) for number in range(5)), *why], {"output/base_score": pa.float32()})
    write_labels(predictions, [*(a_label(number) for number in range(5)), *(a_label(prediction_id=row["prediction_id"]) for row in why)])
    assert log(predictions, "transactions").count() == len(truths(predictions)) == len(truths(predictions, unlabelled=True)) == 5
    assert log(predictions, "transactions", explanations=True).count() == 5 + len(asked)


def test_a_merged_file_stands_for_those_that_it_replaces(tmp_path: Path) -> None:
    small = [write_log(tmp_path, [a_prediction(number)]) for number in range(3)]
    table = log(tmp_path, "transactions").table()
    merged = small[0].with_name(f"{uuid.uuid4().hex}.parquet")
    files.write(files.sliced(table), table.schema, merged, replaces=[path.name for path in small])
    assert log(tmp_path, "transactions").count() == 3
    for path in small:
        path.unlink()
    assert log(tmp_path, "transactions").count() == 3


def test_files_that_are_merged_between_opening_and_reading_are_read_merged(tmp_path: Path) -> None:
    for number in range(5):
        write_log(tmp_path, [a_prediction(number)])
    rows = log(tmp_path, "transactions")
    assert keep_up(tmp_path, NOON + timedelta(days=2)) == (5, 0)
    assert rows.count() == 5


def test_files_that_are_merged_in_the_midst_of_reading_are_read_to_their_end(tmp_path: Path) -> None:
    for number in range(40):
        write_log(tmp_path, [a_prediction(number)])
    batches = log(tmp_path, "transactions").batches()
    seen = [next(batches)]
    assert keep_up(tmp_path, NOON + timedelta(days=2)) == (40, 0)
    seen += batches
    assert sorted(each for batch in seen for each in batch["prediction_id"].to_pylist()) == sorted(f"id-{number}" for number in range(40))


def test_more_files_than_may_be_open_are_read_or_the_reader_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_OPEN", 2)
    for number in range(40):
        write_log(tmp_path, [a_prediction(number)])
    assert log(tmp_path, "transactions").count() == 40
    batches = log(tmp_path, "transactions").batches()
    next(batches)
    for path in tmp_path.rglob("*.parquet"):
        path.unlink()
    with pytest.raises(Unavailable, match="Read again"):
        list(batches)


def test_files_that_are_being_written_are_not_read(tmp_path: Path) -> None:
    path = write_log(tmp_path, [a_prediction(1)])
    path.with_name(".half.parquet").write_bytes(b"PAR1")
    assert log(tmp_path, "transactions").count() == 1


def test_the_label_that_was_received_last_wins(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1), a_prediction(2)])
    write_labels(tmp_path, [a_label(1, "rent", minutes=90), a_label(1, "food", minutes=60)])
    assert truths(tmp_path) == {"id-1": "rent"}


def test_a_label_told_again_overrules_nobody(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1)])
    first = a_label(1, "food", minutes=60)
    write_labels(tmp_path, [first, a_label(1, "rent", minutes=90)])
    write_labels(tmp_path, [{**first, "received_at": first["received_at"] + 7_200_000_000}])
    assert truths(tmp_path) == {"id-1": "rent"}


def test_a_label_that_is_there_before_its_prediction_joins(tmp_path: Path) -> None:
    write_labels(tmp_path, [a_label(1, minutes=0.5)])
    assert truths(tmp_path) == {}
    write_log(tmp_path, [a_prediction(1)])
    assert truths(tmp_path) == {"id-1": "food"}


def test_labels_that_are_not_parquet_yet_join_too_and_count_once_when_they_are(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1)])
    journal = Journal(tmp_path / "labels" / JOURNAL)
    journal.append([a_label(1), a_label(9, model="another")])
    assert truths(tmp_path) == {"id-1": "food"}
    write_labels(tmp_path, [a_label(1)])
    assert truths(tmp_path) == {"id-1": "food"}
    assert [row["prediction_id"] for batch in labels(tmp_path, "another") for row in batch.to_pylist()] == ["id-9"]
    journal.close()


def test_each_row_of_a_prediction_has_its_own_label(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1, row=row) for row in range(3)])
    write_labels(tmp_path, [a_label(1, "rent", row=2), a_label(1, "fun", row=0)])
    rows = [row for batch in joined(tmp_path, "transactions", unlabelled=True) for row in batch.to_pylist()]
    assert {row["row"]: row["truth"] for row in rows} == {0: "fun", 1: None, 2: "rent"}


def test_the_delay_of_a_label_is_counted_from_its_prediction(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1)])
    write_labels(tmp_path, [a_label(1, minutes=61.5, reviewer="ann")])
    (row,) = [row for batch in joined(tmp_path, "transactions", columns=["confidence"]) for row in batch.to_pylist()]
    assert row["label_delay_s"] == 60.5 * 60
    assert (row["reviewer"], row["label_source"], row["labelled_at"]) == ("ann", "api", NOON + timedelta(minutes=61.5))
    assert set(row) == {
        "prediction_id",
        "row",
        "time",
        "confidence",
        "truth",
        "labelled_at",
        "received_at",
        "label_source",
        "reviewer",
        "label_delay_s",
    }


def test_what_was_known_at_a_time_can_be_asked(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1)])
    write_labels(tmp_path, [a_label(1, "rent", minutes=90), a_label(1, "food", minutes=60)])
    assert truths(tmp_path, known_by=NOON + timedelta(minutes=75)) == {"id-1": "food"}
    assert truths(tmp_path, known_by=NOON) == {}


def test_lists_come_through_a_join(tmp_path: Path) -> None:
    write_log(tmp_path, [a_prediction(1, **{"output/scores": [0.25, 0.75]})], {"output/scores": pa.list_(pa.float32())})
    write_labels(tmp_path, [a_label(1)])
    (row,) = [row for batch in joined(tmp_path, "transactions") for row in batch.to_pylist()]
    assert row["output/scores"] == [0.25, 0.75]


LABELS = st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["food", "rent", "fun"]), st.integers(0, 50)), max_size=30)


@settings(deadline=None, max_examples=40)  # files are written and read
@given(LABELS, st.integers(1, 40))
def test_reading_the_labels_in_parts_joins_what_reading_them_at_once_does(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, str, int]], most: int
) -> None:
    folder = tmp_path_factory.mktemp("predictions")
    write_log(folder, [a_prediction(number) for number in range(6)])
    if told:
        write_labels(folder, [a_label(number, label, minutes) for number, label, minutes in told])
    at_once = truths(folder, unlabelled=True)
    assert truths(folder, unlabelled=True, most_labels=most) == at_once
    last_of = {number: max(each[2] for each in told if each[0] == number) for number in {each[0] for each in told}}
    for number, minute in last_of.items():
        one_of = {label for other, label, minutes in told if other == number and minutes == minute}
        assert number >= 6 or at_once[f"id-{number}"] in one_of


def test_the_last_labels_are_one_for_each_row(tmp_path: Path) -> None:
    write_labels(tmp_path, [a_label(number % 3, minutes=number) for number in range(20)])
    assert last_labels(tmp_path, "transactions").num_rows == 3
