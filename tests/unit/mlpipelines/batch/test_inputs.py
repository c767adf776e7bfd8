"""Which files a path means, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpipelines.batch.inputs import content_of, find_inputs, refuse_overlap, root_of
from mlpipelines.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.parquet", "deep/b.parquet", "deep/c.csv", "_temporary/d.parquet", ".e.parquet", "deep/_SUCCESS", "f.pq"):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return tmp_path / "in"


def names(wanted: str) -> list[str]:
    return [file.name for file in find_inputs(wanted)]


def test_a_folder_means_its_parquet_files_and_not_what_is_being_written_or_bookkeeping(folder: Path) -> None:
    assert names(str(folder)) == ["a.parquet", "deep/b.parquet"]


def test_a_file_is_taken_whatever_its_name_ends_with(folder: Path) -> None:
    assert names(str(folder / "f.pq")) == ["f.pq"]


def test_a_glob_names_files_below_its_first_wildcard(folder: Path) -> None:
    assert names(str(folder / "deep" / "*.parquet")) == ["b.parquet"]
    assert names(str(folder / "*" / "*.parquet")) == ["deep/b.parquet"]
    assert names(str(folder / "**" / "*.p*")) == ["a.parquet", "deep/b.parquet", "f.pq"]
    assert root_of(str(folder / "d*" / "x")) == folder


@pytest.mark.parametrize("wanted", ["nowhere", "nowhere/*.parquet", "deep/nothing-*"])
def test_what_is_not_there_is_told(wanted: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no Parquet file"):
        find_inputs(str(folder / wanted))


def test_an_output_beside_a_single_file_is_fine_and_one_that_would_replace_it_is_not(folder: Path) -> None:
    wanted = str(folder / "a.parquet")
    refuse_overlap(wanted, find_inputs(wanted), folder / "scores")
    with pytest.raises(ConfigError, match="lies inside --output"):
        refuse_overlap(wanted, find_inputs(wanted), folder)


def test_a_content_is_still_there_until_the_file_is_written_to(folder: Path) -> None:
    file = folder / "a.parquet"
    content = content_of(file)
    assert content.still_there(file)
    file.write_bytes(b"xy")
    assert not content.still_there(file)
