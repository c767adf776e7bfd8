"""Parquet and CSV: a file, a folder or a glob, here or in a bucket (`gs://…`, anything `pyarrow.fs` knows).

Files are read one after the other, each with its own schema: that is what lets an error name the file and the row, and what
catches the one file of a folder that lacks a column (a dataset over all of them would fill it with nulls in silence).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.fs

from mlpipelines.errors import ConfigError, DataRejected, Unavailable
from mlpipelines.freshness import source_files
from mlpipelines.ingestion.sources.contract import Chunk, Window, numbered, require_columns
from mlpipelines.project import Source

_CSV_BLOCK = 1 << 23
_CSV_PARSING = ("delimiter", "quote_char", "escape_char", "double_quote", "newlines_in_values")
_GLOB = set("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What both kinds share: which files, and where."""

    path: str
    """As project.yaml has it."""
    files: tuple[str, ...]
    filesystem: pa.fs.FileSystem
    base: str | None = None
    """The folder that was named, below which `name=value` folders are columns."""
    remote: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def damaged(self, file: str, what: str, error: Exception) -> DataRejected | Unavailable:
        """`error` in terms of the file. A bucket that cannot be read may only be away; a local file is damaged."""
        if self.remote and isinstance(error, OSError):
            return Unavailable(f"{file} cannot be read: {error}. Try again: `millrace run`.")
        return DataRejected(
            f"{file} cannot be read as {what}: {str(error).rstrip('.')}. It may be truncated or of another kind; write it again, or name another "
            "with --set source.path=FILE.",
            report=[{"rule": f"readable {what}", "origin": file, "example": str(error)[:200]}],
        )


class ParquetFiles(_Files):
    """Parquet, with projection and, on a time column, row groups and rows skipped before they are read."""

    __slots__ = ()

    def describe(self) -> dict[str, Any]:
        """Kind, path and number of files."""
        return {"kind": "parquet", "path": self.path, "files": len(self.files)}

    def chunks(self, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:
        """See `RowSource`."""
        for file in self.files:
            yield from self._file(file, columns, time, window)

    def newest(self, columns: Mapping[str, str], time: str, window: Window) -> Iterator[Chunk]:
        """See `RowSource`: one column of each file."""
        yield from self.chunks({time: columns[time]}, time, window)

    def _file(self, file: str, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:
        try:
            partitioning = ds.partitioning(flavor="hive") if self.base else None
            dataset = ds.dataset(
                [file], format="parquet", filesystem=self.filesystem, partitioning=partitioning, partition_base_dir=self.base
            )
            require_columns(columns, dataset.schema.names, file)
            inside = None if time is None or window.is_open else _filter(columns[time], dataset.schema.field(columns[time]).type, window)
            wanted = list(dict.fromkeys(columns.values()))
            yield from numbered(file, dataset.to_batches(columns=wanted, filter=inside))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise self.damaged(file, "Parquet", error) from error


def _filter(column: str, kind: pa.DataType, window: Window) -> ds.Expression | None:
    """`window` as the source's own filter; None where the column's type has no exact one."""
    if pa.types.is_timestamp(kind):
        bounds = [None if second is None else pa.scalar(second, pa.timestamp("s", kind.tz)) for second in (window.since, window.until)]
    elif pa.types.is_date(kind):
        from datetime import date

        bounds = [None if day is None else pa.scalar(day, kind) for day in window.bounds(date.min)]
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        bounds = [None if second is None else pa.scalar(second, pa.int64()) for second in (window.since, window.until)]
    else:
        return None
    parts = [] if bounds[0] is None else [pc.field(column) >= bounds[0]]
    parts += [] if bounds[1] is None else [pc.field(column) < bounds[1]]
    return parts[0] & parts[1] if len(parts) > 1 else parts[0]


class CsvFiles(_Files):
    """CSV with a header. Every column arrives as raw bytes, so that broken text and wrong numbers are judged in one place."""

    __slots__ = ()

    def describe(self) -> dict[str, Any]:
        """Kind, path and number of files."""
        return {"kind": "csv", "path": self.path, "files": len(self.files)}

    def chunks(self, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:  # noqa: ARG002 - text is filtered later
        """See `RowSource`. The window is left to the caller."""
        for file in self.files:
            yield from self._file(file, columns)

    def newest(self, columns: Mapping[str, str], time: str, window: Window) -> Iterator[Chunk]:
        """See `RowSource`: one column of each file."""
        yield from self.chunks({time: columns[time]}, time, window)

    def _file(self, file: str, columns: Mapping[str, str]) -> Iterator[Chunk]:
        wanted = list(dict.fromkeys(columns.values()))
        reading, parsing = self._read_options()
        converting = pa.csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary()), null_values=[""], strings_can_be_null=True
        )
        try:
            with self.filesystem.open_input_stream(file) as stream:
                reader = pa.csv.open_csv(stream, read_options=reading, parse_options=parsing, convert_options=converting)
                yield from numbered(file, reader)
        except KeyError as error:
            require_columns(columns, self._header(file), file)
            raise self.damaged(file, "CSV", error) from error
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            raise self.damaged(file, "CSV", error) from error

    def _header(self, file: str) -> list[str]:
        reading, parsing = self._read_options()
        with self.filesystem.open_input_stream(file) as stream:
            names: list[str] = pa.csv.open_csv(stream, read_options=reading, parse_options=parsing).schema.names
        return names

    def _read_options(self) -> tuple[pa.csv.ReadOptions, pa.csv.ParseOptions]:
        try:
            reading = pa.csv.ReadOptions(block_size=_CSV_BLOCK, encoding=self.options.get("encoding", "utf8"))
            return reading, pa.csv.ParseOptions(**{name: value for name, value in self.options.items() if name != "encoding"})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"source.options in project.yaml: {error}. Correct it and run again.") from error


def open_files(source: Source, project_dir: Path) -> ParquetFiles | CsvFiles:
    """Find the files of `source.path`.

    Raises:
        ConfigError: there is none, the bucket's kind is unknown, or an option is.
    """
    assert source.path is not None
    _check_options(source)
    remote = "://" in source.path
    if remote:
        files, filesystem, base = _remote_files(source.path, source.kind)
    else:
        files, filesystem = [str(file) for file in source_files(source, project_dir)], pa.fs.LocalFileSystem()
        place = project_dir / Path(source.path).expanduser()
        base = str(place) if place.is_dir() else None
    if not files:
        where = source.path if remote else str(project_dir / Path(source.path).expanduser())
        raise ConfigError(
            f"source.path in project.yaml: there is no {source.kind} file at {where}. Correct it, or `millrace run {project_dir} --set "
            "source.path=FILE`."
        )
    opened = ParquetFiles if source.kind == "parquet" else CsvFiles
    return opened(path=source.path, files=tuple(files), filesystem=filesystem, base=base, remote=remote, options=source.options)


def _check_options(source: Source) -> None:
    known = {*_CSV_PARSING, "encoding"} if source.kind == "csv" else set()
    unknown = sorted(set(source.options) - known)
    if unknown:
        raise ConfigError(
            f"source.options.{unknown[0]} in project.yaml: a source of kind {source.kind!r} "
            + (f"knows {', '.join(sorted(known))}. " if known else "takes no options. ")
            + "Remove it and run again."
        )


def _remote_files(path: str, kind: str) -> tuple[list[str], pa.fs.FileSystem, str | None]:
    try:
        filesystem, place = pa.fs.FileSystem.from_uri(_fixed_part(path))
        below = pa.fs.FileSelector(place, recursive=True, allow_not_found=True)
        info = filesystem.get_file_info(place)
        found = [place] if info.type == pa.fs.FileType.File else [f.path for f in filesystem.get_file_info(below) if f.is_file]
    except pa.ArrowInvalid as error:
        raise ConfigError(f"source.path in project.yaml: {path} is not a place that can be read: {error}") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be listed: {error}. Check the credentials, then try again: `millrace run`.") from error
    if not _GLOB & set(path):
        return sorted(f for f in found if f == place or f.endswith(f".{kind}")), filesystem, place
    pattern = place.rstrip("/") + path[len(_fixed_part(path)) :]
    return sorted(f for f in found if _matches(PurePosixPath(f).parts, PurePosixPath(pattern).parts)), filesystem, None


def _fixed_part(path: str) -> str:
    """The folder above the first part with a wildcard."""
    parts = path.split("/")
    wild = next((at for at, part in enumerate(parts) if _GLOB & set(part)), len(parts))
    return "/".join(parts[:wild])


def _matches(parts: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[at:], patterns[1:]) for at in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
