"""The generated images keep their promises: same seed same files, in any window, several contents at once, broken on request."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlpipelines.ingestion.images import broken_images
from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "image-content"

generator = module_of(PROJECT, "generator")


def table(generator: ModuleType, **options: Any) -> pa.Table:
    return pa.Table.from_batches(generator.rows(**options), schema=generator.SCHEMA)


def test_the_same_seed_gives_the_same_files_and_another_seed_others(generator: ModuleType) -> None:
    first = table(generator, rows=200)
    assert first.equals(table(generator, rows=200))
    assert not first["image"].equals(table(generator, rows=200, seed=8)["image"])


def test_rows_of_a_window_are_those_of_the_whole_period_and_windows_that_touch_lose_none(generator: ModuleType) -> None:
    whole, cut = table(generator, rows=300), datetime(2024, 5, 2, 7, tzinfo=UTC)
    before, after = table(generator, rows=300, until=cut), table(generator, rows=300, since=cut)
    assert pa.concat_tables([before, after]).equals(whole)
    assert 0 < before.num_rows < 300


def test_every_file_is_a_jpeg_of_the_size_that_was_asked_for(generator: ModuleType) -> None:
    for file in table(generator, rows=20, size=48)["image"].to_pylist():
        image = Image.open(io.BytesIO(file))
        assert (image.format, image.size) == ("JPEG", (48, 48))


def test_images_have_none_one_or_several_contents_and_some_contents_are_rare(generator: ModuleType) -> None:
    contents = table(generator, rows=1_000)["contents"].to_pylist()
    numbers = Counter(map(len, contents))
    assert all(numbers[number] > 30 for number in (0, 1, 2, 3))
    shares = Counter(content for of_row in contents for content in of_row)
    assert len(shares) == 6
    assert 3 * shares["barcode"] < shares["person"]


def test_what_comes_from_a_scanner_is_brighter_and_has_more_lettering(generator: ModuleType) -> None:
    rows = table(generator, rows=600)
    brightness = pa.array([float(np.asarray(Image.open(io.BytesIO(file))).mean()) for file in rows["image"].to_pylist()])
    lettering = pa.array([float("lettering" in contents) for contents in rows["contents"].to_pylist()])
    of = {source: pc.equal(rows["source"], source) for source in ("scanner", "phone")}
    for measured in (brightness, lettering):
        assert pc.mean(measured.filter(of["scanner"])).as_py() > 1.2 * pc.mean(measured.filter(of["phone"])).as_py()


def test_files_are_broken_on_request_only(generator: ModuleType) -> None:
    assert not broken_images(table(generator, rows=100)["image"]).any()
    assert 0.1 < broken_images(table(generator, rows=400, broken=0.2)["image"]).mean() < 0.3


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"size": 8}, {"broken": 1.5}, {"days": 0}])
def test_numbers_that_mean_nothing_are_refused(generator: ModuleType, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        list(generator.rows(**wrong))


def test_the_command_writes_a_parquet_file_and_a_picture_of_it(tmp_path: Path) -> None:
    file, sheet = tmp_path / "rows.parquet", tmp_path / "sheet.png"
    words = [sys.executable, PROJECT / "generator.py", "--rows", "30", "--out", file, "--sheet", sheet]
    assert "30 rows" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert pq.read_metadata(file).num_rows == 30
    with Image.open(sheet) as picture:
        assert picture.width == 12 * 32
