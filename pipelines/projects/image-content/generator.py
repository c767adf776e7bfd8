"""Images that nobody took, for the tests and for whoever wants to see the project run: scenes with several contents at once.

Story: `project.yaml` names `generator:rows` as its source; `ingest` calls it and gets Arrow record batches, as from any other source. An
image comes from a phone, a scanner or a partner, which differ in what they send and how it looks; what is on it is drawn by `drawings`
and written as JPEG. A few contents were never ticked by the person who labelled, as in life. The same seed gives the same rows,
whatever part of the period is asked for.

By hand: `python generator.py --rows 5000 --out images.parquet [--size 64] [--broken 0.002] [--sheet images.png]`.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from drawings import CONTENTS, Box, clutter
from PIL import Image, ImageDraw

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uploaded_at", pa.timestamp("s", tz="UTC")),
        ("image", pa.binary()),
        ("source", pa.string()),
        ("country", pa.string()),
        ("contents", pa.list_(pa.string())),
    ]
)
COUNTRIES = ("SE", "DE", "GB", "FR", "PL", "ES")
COUNTRY_SHARES = (0.3, 0.22, 0.18, 0.14, 0.1, 0.06)
UNTICKED = 0.02
"""Contents that are on the image and not among its labels."""
BATCH_ROWS = 2_000
DAY = 86_400
_FINER = 2  # drawn so many times as large, then made smaller: smooth edges


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where images come from, and how they look."""

    share: float
    chances: tuple[float, ...]
    """That each of `CONTENTS` is on an image."""
    noise: float
    """Standard deviation of a pixel, of 255."""
    quality: int
    """Of the JPEG."""
    brightness: tuple[float, float]
    """Lowest and highest of the background, of 255."""


ORIGINS = {
    "phone": Origin(share=0.6, chances=(0.5, 0.3, 0.32, 0.1, 0.1, 0.02), noise=12.0, quality=80, brightness=(40, 215)),
    "partner": Origin(share=0.25, chances=(0.25, 0.25, 0.12, 0.2, 0.25, 0.06), noise=3.0, quality=92, brightness=(190, 250)),
    "scanner": Origin(share=0.15, chances=(0.12, 0.04, 0.03, 0.75, 0.02, 0.22), noise=7.0, quality=70, brightness=(175, 245)),
}


def rows(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    rows: int = 6_000,
    seed: int = 7,
    size: int = 32,
    days: int = 360,
    start: str = "2024-01-01",
    broken: float = 0.0,
) -> Iterator[pa.RecordBatch]:
    """Yield `rows` images of `size` × `size` spread over `days` from `start`, those in [since, until) only.

    Args:
        since: the first moment, naive is UTC.
        until: the first moment that is too late.
        rows: how many, in the whole period.
        seed: of everything that is drawn.
        size: pixels of a side.
        days: of the period.
        start: its first day.
        broken: share of the files that end in the middle.

    Raises:
        ValueError: a number is out of range.
    """
    if min(rows, days) < 1 or size < 16 or not 0 <= broken < 1:
        raise ValueError(f"rows and days must be at least 1, size at least 16 and broken a share, not {rows}, {days}, {size} and {broken}")
    low = -math.inf if since is None else _seconds(since)
    high = math.inf if until is None else _seconds(until)
    first = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp())
    times = first + np.arange(rows) * days * DAY // rows
    wanted = np.flatnonzero((times >= low) & (times < high))
    for at in range(0, len(wanted), BATCH_ROWS):
        numbers = wanted[at : at + BATCH_ROWS]
        yield _batch([_row(int(number), seed, size, broken) for number in numbers], numbers, times[numbers])


def _batch(drawn: list[tuple[bytes, str, str, list[str]]], numbers: np.ndarray[tuple[int], np.dtype[np.int64]],
           times: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.RecordBatch:  # fmt: skip
    images, sources, countries, contents = zip(*drawn, strict=True)
    columns = [
        pa.array([f"i{number:07d}" for number in numbers]),
        pa.array(times).cast(pa.timestamp("s", tz="UTC")),
        pa.array(images, pa.binary()),
        pa.array(sources),
        pa.array(countries),
        pa.array(contents, pa.list_(pa.string())),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _row(number: int, seed: int, size: int, broken: float) -> tuple[bytes, str, str, list[str]]:
    """The file, its source, its country, and what the labels say is on it. Each row has chance of its own."""
    rng = np.random.default_rng([seed, number])
    name = str(rng.choice(list(ORIGINS), p=[origin.share for origin in ORIGINS.values()]))
    country = str(rng.choice(COUNTRIES, p=COUNTRY_SHARES))
    origin = ORIGINS[name]
    present = [content for content, chance in zip(CONTENTS, origin.chances, strict=True) if rng.random() < chance]
    ticked = [content for content in present if rng.random() >= UNTICKED]
    file = _file(_picture(present, origin, size, rng), origin.quality)
    return (file[: len(file) // 2] if rng.random() < broken else file), name, country, ticked


def _picture(present: list[str], origin: Origin, size: int, rng: np.random.Generator) -> Image.Image:
    side = size * _FINER
    light, dark = sorted(rng.uniform(*origin.brightness, 2), reverse=True)
    tint = rng.uniform(0.85, 1.0, 3)
    slope = np.linspace(light, dark, side)[:, np.newaxis, np.newaxis] * tint
    image = Image.fromarray(np.broadcast_to(slope, (side, side, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    places = list(rng.permutation(4))
    for _ in range(int(rng.integers(0, 2))):
        clutter(draw, _box(places[-1], side, rng), rng)
    for order, content in enumerate(rng.permutation(present)):  # from the fifth on, contents cover others
        CONTENTS[str(content)](draw, _box(int(places[order % 4]), side, rng), rng)
    small = np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32)
    return Image.fromarray(np.clip(small + rng.normal(0.0, origin.noise, small.shape), 0, 255).astype(np.uint8))


def _box(place: int, side: int, rng: np.random.Generator) -> Box:
    """A square about half as wide as the image, near one of its quarters."""
    length = side * rng.uniform(0.42, 0.58)
    left, top = ((place % 2, place // 2)[axis] * side * 0.5 + rng.uniform(-0.08, 0.06) * side for axis in (0, 1))
    left, top = (min(max(0.0, value), side - length) for value in (left, top))
    return left, top, left + length, top + length


def _file(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _sheet(table: pa.Table, file: Path, across: int = 12) -> None:
    """The first images side by side, to look at."""
    images = [Image.open(io.BytesIO(image)) for image in table["image"].slice(0, across * across).to_pylist()]
    side = images[0].width
    sheet = Image.new("RGB", (across * side, -(-len(images) // across) * side))
    for place, image in enumerate(images):
        sheet.paste(image, (place % across * side, place // across * side))
    sheet.save(file)


def main() -> int:
    """Write a Parquet file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--broken", type=float, default=0.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="also write the first images as one picture")
    arguments = parser.parse_args()
    made = rows(rows=arguments.rows, seed=arguments.seed, size=arguments.size, broken=arguments.broken)
    table = pa.Table.from_batches(made, schema=SCHEMA)
    pq.write_table(table, arguments.out)
    if arguments.sheet:
        _sheet(table, arguments.sheet)
    print(f"{table.num_rows:,} rows in {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
