"""Parquet and CSV sources: only what was asked for is read, and every damage names its file."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion.sources import RowSource, Window, open_source
from mlpipelines.project import Source

DAY = 86_400
JANUARY = [datetime(2020, 1, day) for day in range(1, 31)]  # noqa: DTZ001 - the column has no zone


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=10)
    return path


def source(kind: str, path: Path | str, **options: Any) -> RowSource:
    return open_source(Source(kind=kind, path=str(path), options=options), Path("/nowhere"))  # type: ignore[arg-type] # a literal


def read(opened: RowSource, *columns: str, time: str | None = None, window: Window = Window()) -> list[dict[str, Any]]:  # noqa: B008 - frozen
    return [row for chunk in opened.chunks({name: name for name in columns}, time, window) for row in chunk.rows.to_pylist()]


def test_only_named_columns_are_read(tmp_path: Path) -> None:
    file = parquet(tmp_path / "rows.parquet", a=[1], secret=["4929 0000"])
    chunks = list(source("parquet", file).chunks({"ours": "a"}, None, Window()))
    assert [chunk.rows.schema.names for chunk in chunks] == [["a"]]


@pytest.mark.parametrize("path", ["rows", "rows/*.parquet", "rows/**/*.parquet"])
def test_a_folder_and_a_glob_are_read_file_by_file(tmp_path: Path, path: str) -> None:
    parquet(tmp_path / "rows/1.parquet", a=[1, 2])
    parquet(tmp_path / "rows/2.parquet", a=[3])
    (tmp_path / "rows/notes.txt").write_text("not data")
    chunks = list(source("parquet", tmp_path / path).chunks({"a": "a"}, None, Window()))
    assert [(Path(c.origin).name, c.first_row, c.rows["a"].to_pylist()) for c in chunks] == [
        ("1.parquet", 0, [1, 2]),
        ("2.parquet", 0, [3]),
    ]


@pytest.mark.parametrize("path", ["", "/*.parquet", "/**/2.parquet"])
def test_places_beyond_this_machine_are_read_alike(tmp_path: Path, path: str) -> None:
    parquet(tmp_path / "2.parquet", a=[3])
    assert read(source("parquet", f"file://{tmp_path}{path}"), "a") == [{"a": 3}]


def test_folders_named_like_values_are_columns(tmp_path: Path) -> None:
    parquet(tmp_path / "rows/team=red/1.parquet", a=[1])
    parquet(tmp_path / "rows/team=blue/1.parquet", a=[2])
    assert read(source("parquet", tmp_path / "rows"), "a", "team") == [{"a": 2, "team": "blue"}, {"a": 1, "team": "red"}]


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("us"), pa.timestamp("ns", "America/New_York"), pa.timestamp("s"), pa.date32(), pa.date64(), pa.int64(), pa.float64()],
)
def test_the_window_is_applied_while_reading(tmp_path: Path, kind: pa.DataType) -> None:
    times = pa.array(JANUARY, pa.timestamp("s"))
    column = times.cast(pa.int64()).cast(kind) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else times.cast(kind)
    if pa.types.is_timestamp(kind) and kind.tz:
        column = times.cast(pa.timestamp("s", "UTC")).cast(kind)
    file = parquet(tmp_path / "rows.parquet", t=column, day=[t.day for t in JANUARY])
    window = Window.between(datetime(2020, 1, 10, tzinfo=UTC), datetime(2020, 1, 13, tzinfo=UTC))
    assert [row["day"] for row in read(source("parquet", file), "day", "t", time="t", window=window)] == [10, 11, 12]


def test_a_file_without_the_column_is_named_even_if_its_neighbours_have_it(tmp_path: Path) -> None:
    parquet(tmp_path / "rows/1.parquet", merchant_name=["a"], amount=[1])
    parquet(tmp_path / "rows/2.parquet", Merchant_Nme=["a"], amount=[1])
    with pytest.raises(
        DataRejected, match=r"2\.parquet lacks a column.*'merchant' \(looked for as 'merchant_name'\), closest: 'Merchant_Nme'"
    ) as refused:
        list(source("parquet", tmp_path / "rows").chunks({"merchant": "merchant_name"}, None, Window()))
    assert "rename" in str(refused.value)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    file = parquet(tmp_path / "rows.parquet", a=list(range(1000)))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataRejected, match=r"rows\.parquet cannot be read as Parquet.*truncated"):
        read(source("parquet", file), "a")


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    file = parquet(tmp_path / "rows.parquet", a=[f"text {i}" for i in range(1000)])
    content = bytearray(file.read_bytes())
    content[100:200] = b"\xff" * 100
    file.write_bytes(content)
    with pytest.raises(DataRejected, match=r"rows\.parquet cannot be read as Parquet"):
        read(source("parquet", file), "a")


def test_a_missing_file_is_a_mistake_in_the_project(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"source\.path in project\.yaml: there is no parquet file at .*nothing\.parquet.*--set source\.path"
    ):
        source("parquet", tmp_path / "nothing.parquet")


def test_csv_is_read_as_bytes_and_empty_fields_are_missing(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b'a,b,secret\n1,"x, y",4929\n,caf\xe9,4929\n')
    assert read(source("csv", file), "b", "a") == [{"b": b"x, y", "a": b"1"}, {"b": b"caf\xe9", "a": None}]


def test_csv_takes_delimiter_and_encoding(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("a;b\ncafé;1\n".encode("latin-1"))
    assert read(source("csv", file, delimiter=";", encoding="latin-1"), "a") == [{"a": "café".encode()}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"rows\.csv cannot be read as CSV"),
        (b"a,b\n1,2\n3\n", r"rows\.csv cannot be read as CSV: .*Expected 2 columns"),
        (b"A,c\n1,2\n", r"rows\.csv lacks a column.*'a', closest: 'A'"),
    ],
)
def test_a_csv_that_is_none_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    with pytest.raises(DataRejected, match=message):
        read(source("csv", file), "a")


def test_a_csv_with_a_header_only_has_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"a,b\n")
    assert read(source("csv", file), "a") == []


@pytest.mark.parametrize(
    ("kind", "options"), [("csv", {"seperator": ";"}), ("parquet", {"delimiter": ";"}), ("csv", {"delimiter": "too long"})]
)
def test_unknown_options_are_refused(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    (tmp_path / "rows.csv").write_bytes(b"a\n1\n")
    parquet(tmp_path / "rows.parquet", a=[1])
    with pytest.raises(ConfigError, match=r"source\.options"):
        read(source(kind, tmp_path / f"rows.{kind}", **options), "a")


def test_window_bounds_fit_the_kind_of_column() -> None:
    window = Window.between(datetime(2020, 1, 1, 12, tzinfo=UTC), datetime(2020, 1, 3))  # noqa: DTZ001 - naive counts as UTC
    assert window.bounds(date(2000, 1, 1)) == (date(2020, 1, 2), date(2020, 1, 3))
    assert window.bounds(datetime(2000, 1, 1)) == (datetime(2020, 1, 1, 12), datetime(2020, 1, 3))  # noqa: DTZ001 - as the column
    assert window.bounds("text") == ("2019-12-31", "2020-01-05")
    assert window.bounds(0) == (1577880000, 1578009600)
    assert Window().bounds("text") == (None, None)
