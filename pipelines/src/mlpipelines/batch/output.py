"""What lies where in an output folder, and how it is written: whole, by rename.

```
<output>/<name>                one file of predictions for each input file, under its name
<output>/_rejected/<name>      the rows of it that could not be scored, each with its reason; absent where there are none
<output>/cases.parquet         with a ranking: what the last run delivered to reviewers
<output>/_cases/<run>.parquet  what each run delivered; who has been delivered already is read from here
<output>/decisions.parquet     where the project has a decisions.py: what the last run decided
<output>/_decisions/<run>.parquet  what each run decided
<output>/_batch.json           the manifest: for each input file its hash, its rows, the model's version, when and by which code
<output>/_state/               the lock, the run that is open, and the parts of files that are not finished
```

The manifest is the truth: a file is scored when it is in there. Everything before that may be done again after a kill and comes
out the same, because the run that was killed is what the next call goes on with (`_state/run.json`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.errors import ConfigError, Conflict
from mlpipelines.lock import only_run
from mlpipelines.workspace import read_json, write_json

FORMAT = 1
ROW_GROUP = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What the manifest says of one scored input file."""

    input: str
    """Its path when it was scored."""
    sha256: str
    rows: int
    scored: int
    rejected: int
    logged: int
    """Predictions that went into the prediction log."""
    model: str
    version: int
    version_digest: str
    """`mlserving.store.digest` of the version's folder."""
    fingerprint: str
    """Of the model's graph, as the registry recorded it."""
    keep: list[str]
    run: str
    started: str
    finished: str
    code: str
    """A hash of Millrace's own source."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Rejected rows by reason; the ten most frequent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`_batch.json`."""

    files: Mapping[str, FileRecord] = field(default_factory=dict)
    failed: Mapping[str, dict[str, str]] = field(default_factory=dict)
    """Input files of the last call that could not be scored, with the reason. They are tried again at the next call."""

    @classmethod
    def read(cls, file: Path) -> Self:
        """The manifest, empty where there is none yet.

        Raises:
            ConfigError: the file is something else.
        """
        if not file.is_file():
            return cls()
        try:
            values = read_json(file)
            if values["format"] != FORMAT:
                raise ConfigError(
                    f"{file} has format {values['format']!r}; this Millrace reads {FORMAT}. Name another folder with --output."
                )
            return cls(files={name: FileRecord(**record) for name, record in values["files"].items()}, failed=values["failed"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file} is no manifest of batch scoring: {error}. Name another folder with --output.") from error

    def write(self, file: Path, **facts: Any) -> None:
        """Write it whole; `facts` about the project stand at its top."""
        records = {name: asdict(record) for name, record in sorted(self.files.items())}
        write_json(file, {"format": FORMAT, **facts, "files": records, "failed": self.failed})


@dataclass(frozen=True, slots=True)
class Output:
    """An output folder and its places."""

    root: Path

    @property
    def manifest(self) -> Path:
        """`_batch.json`."""
        return self.root / "_batch.json"

    @property
    def rejected(self) -> Path:
        """Rows that could not be scored, below the names of their files."""
        return self.root / "_rejected"

    @property
    def cases(self) -> Path:
        """What the last ranking delivered."""
        return self.root / "cases.parquet"

    @property
    def deliveries(self) -> Path:
        """What each run delivered."""
        return self.root / "_cases"

    def delivery(self, run: str) -> Path:
        """What one run delivered."""
        return self.deliveries / f"{run}.parquet"

    @property
    def decisions(self) -> Path:
        """What the project decided in the last run."""
        return self.root / "decisions.parquet"

    def decided(self, run: str) -> Path:
        """What the project decided in one run."""
        return self.root / "_decisions" / f"{run}.parquet"

    @property
    def state(self) -> Path:
        """What one call leaves to the next."""
        return self.root / "_state"

    @property
    def open_run(self) -> Path:
        """The run that has not ended: what was asked for, with which model, since when, for which files."""
        return self.state / "run.json"

    @property
    def staged(self) -> Path:
        """Rows of the project's own source, for as long as they are being scored."""
        return self.state / "source"

    @property
    def work(self) -> Path:
        """Parts of output files."""
        return self.state / "work"


@contextlib.contextmanager
def alone_in(output: Output) -> Iterator[None]:
    """Be the only one that writes to the folder.

    Raises:
        Conflict: another call is at it.
        ConfigError: the folder cannot be made.
    """
    try:
        output.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output.root} cannot be made: {error.strerror}. Name a folder that can be written.") from error
    with contextlib.ExitStack() as stack:
        lock = output.state / "lock"
        try:
            stack.enter_context(only_run(lock, f"process {os.getpid()}"))
        except Conflict as error:
            holder = lock.read_text(encoding="utf-8") or "another process"
            raise Conflict(
                f"{output.root} is being written by {holder} at this moment. Wait for it and type the same command again: what it has "
                "scored is not scored twice. For another folder: --output DIR"
            ) from error
        yield


@contextlib.contextmanager
def written_whole(path: Path, schema: pa.Schema, *, compression: str = "zstd") -> Iterator[pq.ParquetWriter]:
    """A Parquet writer whose file appears at `path`, flushed to the disk, when the context ends well, and not at all when it does not.

    Until then it is a hidden file that no reader of `*.parquet` takes for rows. Its name follows from the path: what a killed call left
    is written over by the one that goes on with its run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = blake2b(path.name.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()  # a long name must not become too long
    fresh = path.parent / f".{name}.writing"
    try:
        with fresh.open("wb") as file:
            with pq.ParquetWriter(file, schema, compression=compression) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
