"""A function of the project as a source."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion.sources import Window, open_source
from mlpipelines.project import Source

ENTRY = """
import pyarrow as pa

def rows(*, since=None, until=None, count=3):
    yield pa.record_batch({"n": list(range(count)), "secret": ["x"] * count, "since": [str(since)] * count})

def wrong(**options):
    yield [1, 2]

def fails(since, until):
    raise TypeError("inside")
"""


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / f"{entry_module(request)}.py").write_text(ENTRY)
    return tmp_path


def entry_module(request: pytest.FixtureRequest) -> str:
    return f"entry_{abs(hash(request.node.name))}"  # modules live as long as the process


def test_it_is_called_with_window_and_options_and_loses_unnamed_columns(folder: Path, request: pytest.FixtureRequest) -> None:
    opened = open_source(Source(kind="python", entry=f"{entry_module(request)}:rows", options={"count": 2}), folder)
    window = Window.between(datetime(2020, 1, 1, tzinfo=UTC), None)
    chunks = list(opened.chunks({"number": "n", "from": "since"}, "number", window))
    assert chunks[0].rows.to_pylist() == [{"n": 0, "since": "2020-01-01 00:00:00+00:00"}, {"n": 1, "since": "2020-01-01 00:00:00+00:00"}]


@pytest.mark.parametrize(
    ("entry", "options", "message"),
    [
        ("{}", {}, "write module:function"),
        ("absent:rows", {}, r"absent\.py does not exist"),
        ("{}:absent", {}, "has no function 'absent'"),
        ("{}:rows", {"cuont": 2}, r"source\.options in project\.yaml do not fit"),
        ("{}:wrong", {}, r"must yield pyarrow\.RecordBatch, not list"),
    ],
)
def test_a_wrong_entry_is_a_mistake_in_the_project(
    folder: Path, request: pytest.FixtureRequest, entry: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        list(
            open_source(Source(kind="python", entry=entry.format(entry_module(request)), options=options), folder).chunks(
                {"n": "n"}, None, Window()
            )
        )


def test_a_missing_column_names_the_entry(folder: Path, request: pytest.FixtureRequest) -> None:
    opened = open_source(Source(kind="python", entry=f"{entry_module(request)}:rows"), folder)
    with pytest.raises(DataRejected, match=r":rows lacks a column.*'secrets'.*closest: 'secret'"):
        list(opened.chunks({"secrets": "secrets"}, None, Window()))


def test_an_error_inside_the_entry_is_left_alone(folder: Path, request: pytest.FixtureRequest) -> None:
    opened = open_source(Source(kind="python", entry=f"{entry_module(request)}:fails"), folder)
    with pytest.raises(TypeError, match="inside"):
        list(opened.chunks({"n": "n"}, None, Window()))
