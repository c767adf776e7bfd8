"""`millrace labels import`: what is right is kept, what is wrong is named by its line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlserving.errors import ConfigError
from mlserving.predictions import labels_command
from mlserving.predictions.labels_command import main
from mlserving.predictions.reading import last_labels


@pytest.fixture(autouse=True)
def _no_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_command, "_PATIENCE", 0.0)


def imported(folder: Path, file: Path) -> tuple[int, list[dict[str, Any]]]:
    status = main(["import", str(file), "--model", "cards", "--predictions", str(folder)])
    return status, last_labels(folder, "cards").sort_by([("prediction_id", "ascending"), ("row", "ascending")]).to_pylist()


def test_a_csv_s_labels_are_kept_and_importing_it_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "audit.csv"
    file.write_text(
        'prediction_id,row,label,labelled_at,reviewer\na,0,food,2025-01-01T10:00:00Z,ann\nb,,"two\nlines",2025-01-01T11:00:00+01:00,\n'
    )
    status, rows = imported(tmp_path, file)
    assert status == 0
    assert [(row["prediction_id"], row["label"], row["reviewer"], row["source"]) for row in rows] == [
        ("a", "food", "ann", "import"),
        ("b", "two\nlines", None, "import"),
    ]
    assert [row["labelled_at"] for row in rows] == [datetime(2025, 1, 1, 10, tzinfo=UTC)] * 2
    assert imported(tmp_path, file) == (0, rows)
    assert "2 labels of cards kept, 0 refused" in capsys.readouterr().out


def test_a_wrong_line_is_named_and_the_others_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "audit.csv"
    file.write_text("label,prediction_id,labelled_at\nfood,a,\n,b,\nrent,c d,\nrent,e,yesterday\nrent,f,\nx,y,,z\n")
    status, rows = imported(tmp_path, file)
    assert status == 2
    assert [row["prediction_id"] for row in rows] == ["a", "f"]
    printed = capsys.readouterr().out
    for line, path in ((3, "label"), (4, "prediction_id"), (5, "labelled_at"), (7, "(more)")):
        assert f"line {line}: {path}: " in printed
    assert "2 labels of cards kept, 4 refused" in printed


def test_parquet_s_types_are_taken_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "audit.parquet"
    times = pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("ms", tz="UTC"))
    pq.write_table(
        pa.table({"prediction_id": ["a", "b"], "label": [1, 2], "row": pa.array([0, 3], pa.int64()), "labelled_at": times}), file
    )
    status, rows = imported(tmp_path, file)
    assert status == 0
    assert [(row["prediction_id"], row["label"], row["row"]) for row in rows] == [("a", "1", 0), ("b", "2", 3)]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", "prediction_id,truth\na,b\n", "missing columns: label; unknown: truth"),
        ("a.csv", "", "missing columns"),
        ("a.csv", b"prediction_id,label\na,\xff\n", "cannot be read"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.txt", "", "neither"),
    ],
)
def test_a_file_that_holds_no_labels_is_told_what_is_wrong(tmp_path: Path, name: str, content: str | bytes, text: str) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=text):
        imported(tmp_path, file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        imported(tmp_path, tmp_path / "nowhere.csv")


def test_more_labels_than_one_request_may_have_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "audit.csv"
    file.write_text("prediction_id,label\n" + "".join(f"id-{number},food\n" for number in range(25_000)))
    status, rows = imported(tmp_path, file)
    assert (status, len(rows)) == (0, 25_000)
