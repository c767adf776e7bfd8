"""A function in the project folder as a source: generated rows, an API, anything that can yield Arrow record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlpipelines.errors import ConfigError
from mlpipelines.ingestion.sources.contract import Chunk, Window, numbered, require_columns
from mlpipelines.project import Source
from mlpipelines.project_code import load_code


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonSource:
    """`module:function`, called with `since`, `until` and the source's options as keywords. Its own errors keep their traceback."""

    entry: str
    function: Callable[..., Iterable[pa.RecordBatch]]
    options: Mapping[str, Any]

    @classmethod
    def open(cls, source: Source, project_dir: Path) -> PythonSource:
        """Import the entry.

        Raises:
            ConfigError: it is not `module:function`, or there is no such module or function.
        """
        module, colon, name = (source.entry or "").partition(":")
        if not colon or not module or not name:
            raise ConfigError(f"source.entry in project.yaml is {source.entry!r}: write module:function, for example generator:rows")
        function = getattr(load_code(project_dir, module), name, None)
        if not callable(function):
            raise ConfigError(f"source.entry in project.yaml: {project_dir / module}.py has no function {name!r}. Add it, then run again.")
        return cls(entry=source.entry or "", function=function, options=source.options)

    def describe(self) -> dict[str, Any]:
        """Kind, entry and options."""
        return {"kind": "python", "entry": self.entry, "options": dict(self.options)}

    def chunks(self, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:  # noqa: ARG002 - the entry filters
        """See `RowSource`."""
        since, until = window.as_datetimes()
        try:
            batches = self.function(since=since, until=until, **self.options)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise  # raised inside the function
            raise ConfigError(
                f"source.options in project.yaml do not fit {self.entry}: {error}. It is called with since, until and the options as keywords."
            ) from error
        yield from numbered(self.entry, (self._projected(batch, columns) for batch in batches))

    def newest(self, columns: Mapping[str, str], time: str, window: Window) -> Iterator[Chunk]:
        """See `RowSource`: the entry is called once more, since nobody else knows its newest row."""
        yield from self.chunks({time: columns[time]}, time, window)

    def _projected(self, batch: pa.RecordBatch, columns: Mapping[str, str]) -> pa.RecordBatch:
        if not isinstance(batch, pa.RecordBatch):
            raise ConfigError(f"{self.entry} must yield pyarrow.RecordBatch, not {type(batch).__name__}. Correct it and run again.")
        require_columns(columns, batch.schema.names, self.entry)
        return batch.select(list(dict.fromkeys(columns.values())))
