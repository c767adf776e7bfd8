"""Columns of every kind become the eight types of project.yaml, or are refused with the rows that show why."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpipelines.errors import DataRejected
from mlpipelines.ingestion.canonical import ARROW_TYPES, Repairs, canonical_array, canonical_batch
from mlpipelines.project import ColumnType

NEW_YEAR = 1577836800  # 2020-01-01T00:00:00Z


def cast(values: Any, kind: ColumnType) -> list[Any]:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    result = canonical_array(array, kind, Repairs())
    assert result.type == ARROW_TYPES[kind]
    result.validate(full=True)
    return list(result.to_pylist())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None], ["a", None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array(["a"], pa.string_view()), ["a"]),
        ([b"a"], ["a"]),
        ([7, 2**60], ["7", "1152921504606846976"]),
        ([7.0, 1.5, None, float("nan")], ["7", "1.5", None, None]),
        ([True, False], ["true", "false"]),
        ([Decimal("1.50")], ["1.50"]),
        ([UUID(int=7), None], ["00000000-0000-0000-0000-000000000007", None]),
        ([None, None], [None, None]),
    ],
)
def test_what_can_be_written_is_text(values: Any, expected: list[str | None]) -> None:
    assert cast(values, "string") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2], pa.int8()), [1, 2]),
        ([3.0, float("nan"), None], [3, None, None]),
        ([Decimal("4.00")], [4]),
        ([True], [1]),
        ([" 5", "6.0", "", "NA", "-7"], [5, 6, None, None, -7]),
        (["9007199254740993"], [9007199254740993]),
    ],
)
def test_whole_numbers_of_any_type_are_integers(values: Any, expected: list[int | None]) -> None:
    assert cast(values, "integer") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], [1.0, 2.0]),
        ([Decimal("1.25"), None], [1.25, None]),
        (["1.5", "-2e3", "nan", "null", " "], [1.5, -2000.0, None, None, None]),
        ([float("nan"), 0.5], [None, 0.5]),
    ],
)
def test_numbers_of_any_type_are_floats_and_nan_is_missing(values: Any, expected: list[float | None]) -> None:
    assert cast(values, "float") == expected


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2020, 1, 1),  # noqa: DTZ001 - naive times count as UTC
        dt.datetime(2020, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.date(2020, 1, 1),
        "2020-01-01",
        "2020-01-01 00:00",
        "2020-01-01T00:00:00.250Z",
        "2019-12-31T19:00:00-05:00",
        b"2020-01-01",
        NEW_YEAR,
        float(NEW_YEAR),
        str(NEW_YEAR),
    ],
)
def test_a_moment_is_the_same_second_however_it_is_written(value: Any) -> None:
    assert cast([value, None], "timestamp") == [NEW_YEAR, None]


def test_times_before_1970_round_down_like_all_others() -> None:
    assert cast([dt.datetime(1969, 12, 31, 23, 59, 59, 500_000)], "timestamp") == [-1]  # noqa: DTZ001 - as above


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([["a", None], None, []], "[string]", [["a"], None, []]),
        (pa.array([["a"], ["b", "c"]], pa.large_list(pa.large_string()))[1:], "[string]", [["b", "c"]]),
        (['["a", "b"]', "", "[]"], "[string]", [["a", "b"], None, []]),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), "[float]", [[1.0, 2.0]]),
        ([["1"], []], "[integer]", [[1], []]),
    ],
)
def test_lists_keep_their_items_and_lose_nulls(values: Any, kind: ColumnType, expected: list[Any]) -> None:
    assert cast(values, kind) == expected


def test_broken_utf8_and_nul_are_mended_and_counted() -> None:
    broken = pa.array([b"caf\xe9", b"a\x00b", "blå".encode(), None]).cast(pa.string(), safe=False)
    mended = Repairs()
    assert canonical_array(broken, "string", mended).to_pylist() == ["caf\N{REPLACEMENT CHARACTER}", "ab", "blå", None]
    assert mended == Repairs(broken_utf8=1, nul=1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1,5"], "float"),
        ([1.5], "integer"),
        (["01/04/2016"], "timestamp"),
        (["20160401"], "timestamp"),
        ([1577836800000], "timestamp"),
        ([dt.date(2020, 1, 1)], "float"),
        ([1], "bytes"),
        ([{"a": 1}], "string"),
        (["a, b"], "[string]"),
        ([1], "[integer]"),
    ],
)
def test_what_has_no_obvious_meaning_is_refused(values: Any, kind: ColumnType) -> None:
    batch = pa.record_batch({"theirs": values})
    with pytest.raises(DataRejected, match=r"rows\.csv: column 'ours' \(there: 'theirs'\) should be"):
        canonical_batch(batch, {"ours": kind}, theirs={"ours": "theirs"}, origin="rows.csv", first_row=0)


def test_a_refusal_shows_three_values_and_counts_rows_from_the_start_of_the_file() -> None:
    batch = pa.record_batch({"amount": ["1"] * 500 + ["x", "y"] + ["2"] * 500 + ["z", "w"]})
    with pytest.raises(DataRejected, match=r"'x' in row 1501, 'y' in row 1502, 'z' in row 2003\.") as refused:
        canonical_batch(batch, {"amount": "float"}, theirs={"amount": "amount"}, origin="rows.csv", first_row=1000)
    assert [(row["column"], row["row"], row["example"]) for row in refused.value.report] == [
        ("amount", 1501, "'x'"),
        ("amount", 1502, "'y'"),
        ("amount", 2003, "'z'"),
    ]


@given(st.lists(st.one_of(st.none(), st.text())))
def test_any_text_survives_but_for_nul(texts: list[str | None]) -> None:
    encoded = [None if text is None else text.encode("utf-8", "replace") for text in texts]
    expected = [None if raw is None else raw.decode().replace("\0", "") for raw in encoded]
    assert cast(pa.array(encoded, pa.binary()), "string") == expected


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))))
def test_integers_survive_a_detour_over_text(numbers: list[int | None]) -> None:
    assert cast(pa.array([None if n is None else str(n) for n in numbers], pa.string()), "integer") == numbers
