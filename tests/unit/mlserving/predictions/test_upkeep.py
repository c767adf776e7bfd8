"""Old days: merged without a row lost or doubled wherever the merger dies, deleted when they are too old, and rows erased on request."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlserving.errors import ConfigError, Unavailable
from mlserving.predictions import files, upkeep
from mlserving.predictions.commit import locked
from mlserving.predictions.files import STAGING
from mlserving.predictions.forget import forget
from mlserving.predictions.labels import LabelStore
from mlserving.predictions.predictions_command import main
from mlserving.predictions.reading import labels, log
from mlserving.predictions.upkeep import UPKEEP, keep_up
from prediction_rows import NOON, a_label, a_prediction, write_labels, write_log

AFTERWARDS = NOON + timedelta(days=2)
SHOP = {"feature/merchant": pa.string(), "feature/amount": pa.float32()}


def parquet(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def ids(predictions: Path) -> list[str]:
    return sorted(log(predictions, "transactions").table(["prediction_id"])["prediction_id"].to_pylist())


def told(predictions: Path) -> list[str]:
    return sorted(row["prediction_id"] for batch in labels(predictions, "transactions") for row in batch.to_pylist())


def a_shop(number: int, merchant: str | None = "ACME", **changes: Any) -> dict[str, Any]:
    return a_prediction(number, **{"feature/merchant": merchant, "feature/amount": float(number)} | changes)


def test_the_small_files_of_a_day_that_is_over_become_one_for_each_version(tmp_path: Path) -> None:
    for number in range(6):
        write_log(tmp_path, [a_prediction(number, version=number % 2 + 1)])
        write_labels(tmp_path, [a_label(number)])
    assert keep_up(tmp_path, AFTERWARDS) == (12, 0)
    assert len(parquet(tmp_path / "log")) == 2
    assert len(parquet(tmp_path / "labels")) == 1
    assert ids(tmp_path) == told(tmp_path) == [f"id-{number}" for number in range(6)]
    assert log(tmp_path, "transactions", versions=[2]).count() == 3
    assert keep_up(tmp_path, AFTERWARDS) == (0, 0)


@pytest.mark.parametrize(
    ("now", "merged"),
    [
        (NOON.replace(hour=23), 0),
        (NOON + timedelta(hours=13), 0),
        (NOON + timedelta(hours=14, minutes=1), 2),
        (NOON - timedelta(days=3), 0),
    ],
    ids=["the same day", "an hour into the next", "two hours into the next", "a clock that jumped back"],
)
def test_a_day_is_merged_once_it_is_over_and_settled(tmp_path: Path, now: datetime, merged: int) -> None:
    write_log(tmp_path, [a_prediction(1)])
    write_log(tmp_path, [a_prediction(2)])
    assert keep_up(tmp_path, now) == (merged, 0)


def test_rows_that_come_after_the_merge_are_merged_by_the_next(tmp_path: Path) -> None:
    for number in range(3):
        write_log(tmp_path, [a_prediction(number)])
    keep_up(tmp_path, AFTERWARDS)
    write_log(tmp_path, [a_prediction(3)])
    assert keep_up(tmp_path, AFTERWARDS) == (2, 0)
    assert ids(tmp_path) == [f"id-{number}" for number in range(4)]
    assert len(parquet(tmp_path)) == 1


@contextlib.contextmanager
def dying_at(monkeypatch: pytest.MonkeyPatch, call: int) -> Any:
    """The process dies at its n-th change of a name on the disk."""
    made = 0

    class Killed(BaseException):
        pass

    def counted(real: Any) -> Any:
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == call:
                raise Killed
            return real(*arguments, **options)

        return change

    with monkeypatch.context() as patched:
        for name in ("rename", "unlink"):
            patched.setattr(Path, name, counted(getattr(Path, name)))
        with contextlib.suppress(Killed):
            yield


@pytest.mark.parametrize("call", range(1, 7))
def test_wherever_a_merger_dies_each_row_is_read_once_then_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    for number in range(4):
        write_log(tmp_path, [a_prediction(number)])
    expected = ids(tmp_path)
    with dying_at(monkeypatch, call):
        keep_up(tmp_path, AFTERWARDS)
    assert ids(tmp_path) == expected
    keep_up(tmp_path, AFTERWARDS)
    assert ids(tmp_path) == expected
    assert len(parquet(tmp_path)) == 1


def test_two_who_merge_the_same_files_where_nothing_locks_write_no_row_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_log(tmp_path, [a_prediction(number)])
    appear = files.appear

    def after_another(staged: Path, target: Path) -> None:
        monkeypatch.setattr(files, "appear", appear)
        kept = staged.rename(tmp_path / "kept")  # the other one tidies up first, and knows nothing of us
        keep_up(tmp_path, AFTERWARDS)
        staged.parent.mkdir(parents=True, exist_ok=True)
        appear(kept.rename(staged), target)

    monkeypatch.setattr(files, "appear", after_another)
    monkeypatch.setattr(upkeep, "locked", lambda _: contextlib.nullcontext(True))
    keep_up(tmp_path, AFTERWARDS)
    assert ids(tmp_path) == [f"id-{number}" for number in range(4)]


def test_days_that_are_too_old_go_and_the_others_stay(tmp_path: Path) -> None:
    for days in range(5):
        write_log(tmp_path, [a_prediction(days, time=NOON - timedelta(days=days))])
    assert keep_up(tmp_path, NOON, keep_days=2) == (0, 2)
    assert ids(tmp_path) == ["id-0", "id-1", "id-2"]


def test_what_is_told_of_an_id_is_erased_with_its_labels(tmp_path: Path) -> None:
    write_log(tmp_path, [a_shop(1), a_shop(2)], SHOP)
    write_log(tmp_path, [a_shop(3)], SHOP)
    write_labels(tmp_path, [a_label(1), a_label(2), a_label(3)])
    with LabelStore(tmp_path) as store:
        store.store({"model": "transactions", "labels": [{"prediction_id": "id-1", "label": "rent"}]})
    erased = forget(tmp_path, "transactions", ids=["id-1", "id-3"])
    assert (erased.predictions, erased.labels, erased.prediction_ids) == (2, 3, ("id-1", "id-3"))
    assert (ids(tmp_path), told(tmp_path)) == (["id-2"], ["id-2"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"id-1" in path.read_bytes()]


def test_what_has_a_feature_s_value_is_erased_also_from_files_that_a_dead_merger_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path, [a_shop(1, "Jane Roe"), a_shop(2)], SHOP)
    write_log(tmp_path, [a_shop(3, "Jane Roe"), a_shop(4, None)], SHOP)
    with dying_at(monkeypatch, 2):
        keep_up(tmp_path, AFTERWARDS)
    assert len(parquet(tmp_path)) == 3
    assert forget(tmp_path, "transactions", where=("feature/merchant", "Jane Roe"), dry_run=True).predictions == 2
    assert len(ids(tmp_path)) == 4
    assert forget(tmp_path, "transactions", where=("feature/merchant", "Jane Roe")).predictions == 2
    assert ids(tmp_path) == ["id-2", "id-4"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"Jane" in path.read_bytes()]


def test_only_the_rows_of_a_prediction_that_match_are_erased(tmp_path: Path) -> None:
    write_log(tmp_path, [a_shop(1, "Jane Roe"), a_shop(1, "ACME", row=1)], SHOP)
    write_labels(tmp_path, [a_label(1), a_label(1, row=1)])
    assert forget(tmp_path, "transactions", where=("feature/merchant", "Jane Roe")).labels == 1
    assert log(tmp_path, "transactions").table()["row"].to_pylist() == [1]


@pytest.mark.parametrize(("value", "found"), [("2", 1), ("2.0", 1), ("2.5", 0), ("two", 0)])
def test_a_number_is_found_by_its_value(tmp_path: Path, value: str, found: int) -> None:
    write_log(tmp_path, [a_shop(1), a_shop(2)], SHOP)
    assert forget(tmp_path, "transactions", where=("feature/amount", value)).predictions == found


def test_a_feature_that_was_never_logged_is_told_with_those_that_were(tmp_path: Path) -> None:
    write_log(tmp_path, [a_shop(1)], SHOP)
    with pytest.raises(ConfigError, match="amount, merchant"):
        forget(tmp_path, "transactions", where=("feature/owner", "Jane Roe"))


def test_nobody_erases_while_files_are_merged(tmp_path: Path) -> None:
    write_log(tmp_path, [a_shop(1)], SHOP)
    with locked(tmp_path / STAGING / UPKEEP), pytest.raises(Unavailable, match="again"):
        forget(tmp_path, "transactions", ids=["id-1"])


def test_the_command_says_what_it_erased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path, [a_shop(1, "Jane Roe"), a_shop(2)], SHOP)
    arguments = ["forget", "--predictions", str(tmp_path), "--model", "transactions", "--where", "merchant=Jane Roe"]
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["id-1", "1 predictions and 0 labels of transactions would be erased, in 1 files"]
    assert main(arguments) == 0
    assert "1 predictions and 0 labels of transactions erased" in capsys.readouterr().out
    assert ids(tmp_path) == ["id-2"]
