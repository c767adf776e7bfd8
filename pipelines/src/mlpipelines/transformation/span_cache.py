"""What TensorFlow Transform's analyzers found in each part of the training data, kept so that it is not looked for again.

An analyzer's result over all rows is merged from partial results (accumulators). Those of data that did not change are read
back from `ProjectState.analyzer_cache`; only the rest is analysed. The unit of keeping is a span, or several small spans
together: each unit is a branch of its own in Beam's graph, which costs more than a second, and fewer rows than
`ROWS_IN_A_UNIT` are analysed again in less. The newest span is always a unit of its own, because it is the one that grows.

`plan` decides what is reused and what is analysed; `SpanCache` is the folder. One file holds one unit: a line of JSON (its
spans and the digest of what follows) and an Arrow stream of (analyzer, accumulator). A file appears whole or not at all,
and one whose digest does not agree is as good as absent.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlserving.workspace import write_whole

ROWS_IN_A_UNIT = 500_000
UNUSED_DAYS = 30
_SUFFIX = ".unit"
_ENTRY = pa.schema([("analyzer", pa.binary()), ("accumulator", pa.large_binary())])


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """The training rows of one span, as the data manifest describes them."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Spans whose partial results are kept together."""

    spans: tuple[Span, ...]

    @property
    def name(self) -> str:
        """The file's name without suffix: a hash over the spans' names and contents."""
        content = "\n".join(f"{span.name} {span.sha256}" for span in self.spans)
        return hashlib.sha256(content.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which units are taken from the cache and which are analysed."""

    kept: tuple[Unit, ...]
    fresh: tuple[Unit, ...]


def plan(spans: Sequence[Span], cached: Iterable[Unit], rows_in_a_unit: int = ROWS_IN_A_UNIT) -> Plan:
    """Cover `spans` (oldest first) by cached units that agree in every span, the largest first, and by new units."""
    open_spans = set(spans)
    kept = []
    for unit in sorted(cached, key=lambda unit: (-len(unit.spans), unit.spans)):
        if open_spans.issuperset(unit.spans):
            kept.append(unit)
            open_spans.difference_update(unit.spans)
    fresh = [span for span in spans if span in open_spans]
    return Plan(kept=tuple(kept), fresh=tuple(_units(fresh, rows_in_a_unit)))


def _units(spans: Sequence[Span], limit: int) -> list[Unit]:
    units: list[list[Span]] = []
    for span in spans[:-1]:
        if units and sum(other.rows for other in units[-1]) + span.rows <= limit:
            units[-1].append(span)
        else:
            units.append([span])
    units += [[span] for span in spans[-1:]]
    return [Unit(spans=tuple(unit)) for unit in units]


@dataclass(frozen=True, slots=True)
class SpanCache:
    """The units of one preprocessing code, in one folder below `ProjectState.analyzer_cache`."""

    folder: Path

    def units(self) -> list[Unit]:
        """What is there. Only the first line of each file is read."""
        return [unit for file in sorted(self.folder.glob(f"*{_SUFFIX}")) if (unit := _unit_of(file)) is not None]

    def read(self, unit: Unit) -> dict[bytes, list[bytes]] | None:
        """Accumulators by analyzer; None if the file is gone or damaged, in which case it is removed."""
        file = self._file(unit)
        entries = _entries_of(file)
        if entries is None:
            file.unlink(missing_ok=True)
        else:
            os.utime(file)  # it is in use: `prune` leaves it alone
        return entries

    def write(self, unit: Unit, entries: Mapping[bytes, Sequence[bytes]]) -> None:
        """Keep `entries`, whole or not at all."""
        buffer = io.BytesIO()
        # an analyzer that found nothing is kept too, as a null: it must not look as if it had never run
        nothing: Sequence[bytes | None] = (None,)
        rows = [{"analyzer": analyzer, "accumulator": value} for analyzer, values in entries.items() for value in (values or nothing)]
        with pa.ipc.new_stream(buffer, _ENTRY, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
            stream.write_batch(pa.RecordBatch.from_pylist(rows, _ENTRY))
        body = buffer.getvalue()
        spans = [{"name": span.name, "sha256": span.sha256, "rows": span.rows} for span in unit.spans]
        header = json.dumps({"spans": spans, "sha256": hashlib.sha256(body).hexdigest()})
        write_whole(self._file(unit), header.encode() + b"\n" + body)

    def _file(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}{_SUFFIX}"


def prune(root: Path, *, now: float, unused_days: int = UNUSED_DAYS) -> int:
    """Remove units of any code that no run has read or written for `unused_days`, and what killed runs left. Returns how many files."""
    oldest = now - unused_days * 86_400
    removed = 0
    for folder in [path for path in root.glob("*") if path.is_dir()]:
        for file in folder.iterdir():
            if file.stat().st_mtime < (now - 86_400 if file.name.startswith(".") else oldest):
                file.unlink(missing_ok=True)
                removed += 1
        if not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
    return removed


def _unit_of(file: Path) -> Unit | None:
    with file.open("rb") as opened:
        header = _header(opened.readline())
    return None if header is None else header[0]


def _header(line: bytes) -> tuple[Unit, str] | None:
    try:
        header = json.loads(line)
        return Unit(spans=tuple(Span(**span) for span in header["spans"])), header["sha256"]
    except (ValueError, KeyError, TypeError):
        return None


def _entries_of(file: Path) -> dict[bytes, list[bytes]] | None:
    if not file.is_file():
        return None
    line, _, body = file.read_bytes().partition(b"\n")
    header = _header(line)
    if header is None or hashlib.sha256(body).hexdigest() != header[1]:
        return None
    entries: dict[bytes, list[bytes]] = {}
    for batch in pa.ipc.open_stream(body):
        for analyzer, value in zip(batch["analyzer"].to_pylist(), batch["accumulator"].to_pylist(), strict=True):
            entries.setdefault(analyzer, []).extend([] if value is None else [value])
    return entries
