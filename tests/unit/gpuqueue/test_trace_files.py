"""Traces from files: what can be read, and what a refusal says."""

import re
from pathlib import Path

import pytest

from gpuqueue.errors import ConfigError
from gpuqueue.history import Past, line_of
from gpuqueue.trace_files import read_trace

AGAIN = "gpuq plan --help"
HEAD = "queue,lane,gpus,since,at,ended,limit"
ONE = Past(queue="a", lane="l4", namespace="", name="", family="", gpus=2, since=10.0, at=20.0, ended=30.0, limit=5400.0)


def write(folder: Path, name: str, *lines: str) -> Path:
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_lines_of_a_history_are_read(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, "trace.jsonl", line_of(ONE), "", line_of(ONE)), AGAIN) == (ONE, ONE)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        (HEAD, "a,l4,2,10,20,30,90m"),
        (HEAD, "a,l4,2,10.0,20,30,5400"),
        ("gpus,ended,at,since,lane,queue,limit,colour", "2,30,20,10,l4,a,1h30m,red"),
        (HEAD, "a,l4,2,1970-01-01T00:00:10Z,1970-01-01T01:00:20+01:00,30,90m"),
    ],
    ids=["a duration", "seconds", "columns in any order", "the calendar's time"],
)
def test_a_table_is_read_by_its_columns_names(tmp_path: Path, head: str, row: str) -> None:
    assert read_trace(write(tmp_path, "trace.csv", head, row), AGAIN) == (ONE,)


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("t.csv", ["queue,lane,gpus,since,at"], "t.csv, line 1: no column 'ended'; it needs queue, lane, gpus, since, at, ended"),
        ("t.csv", [HEAD, "a,l4,2,10,20,30,", "a,l4,two,10,20,30,"], "t.csv, line 3, column gpus: 'two' is no whole number"),
        ("t.csv", [HEAD, "a,l4,2,10,soon,30,"], "line 2, column at: 'soon' is no moment; write seconds since 1970 or"),
        ("t.csv", [HEAD, "a,l4,2,1772481600000,1772481600000,1772481660000,"], "is no moment; write seconds since 1970, not milliseconds"),
        ("t.csv", [HEAD, "a,l4,2,nan,20,30,"], "column since: 'nan' is no moment"),
        ("t.csv", [HEAD, "a,l4,2,2026-03-02T20:00:00,20,30,"], "column since: '2026-03-02T20:00:00' has no time zone"),
        ("t.csv", [HEAD, "a,l4,2,10,20,30,later"], "column limit: 'laters' is no duration|column limit: 'later' is no duration"),
        ("t.csv", [HEAD, "a,l4,2,20,10,30,"], "columns since, at, ended: a job comes, is granted, and ends, in this order"),
        ("t.csv", [HEAD, ",l4,2,10,20,30,"], "column queue: it is empty"),
        ("t.csv", [HEAD, "a,l4,2"], "column since: it is empty"),
        ("t.csv", [HEAD], "t.csv holds no job"),
        ("t.jsonl", [line_of(ONE), "[1,2"], "t.jsonl, line 2: "),
        ("t.jsonl", ['{"queue": "a"}'], re.escape("t.jsonl, line 1: it does not begin with [1,")),
    ],
)
def test_a_line_that_cannot_be_read_refuses_the_file_and_says_where(tmp_path: Path, name: str, lines: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        read_trace(write(tmp_path, name, *lines), AGAIN)
    assert str(refused.value).endswith(AGAIN)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere.csv", "binary.csv"):
        with pytest.raises(ConfigError, match=rf"{name} cannot be read: .* Name another file: {AGAIN}"):
            read_trace(tmp_path / name, AGAIN)
