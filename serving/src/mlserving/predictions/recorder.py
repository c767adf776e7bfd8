"""The recorder: takes what the gateway spooled, and writes it as Parquet. A process of its own, so that decoding delays no request.

It takes finished segments, decodes them, and holds the rows until they make a file worth having. Then the files are written, and by one
note (`commit`) they appear and the segments go; so each exchange is in the log once, whenever the recorder is killed. A full disk costs
nothing here: the segments stay until there is space, and the gateway drops, and counts, what the spool does not hold.

It also makes Parquet of the labels (`labels`), merges the small files of days that are over (`upkeep`), and tells its figures.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import structlog

from mlserving.errors import ServingError, Unavailable
from mlserving.gateway import settings as gateway_settings
from mlserving.predictions import files, labels, upkeep
from mlserving.predictions.batch import Batch, Group, time_of
from mlserving.predictions.call import Undecodable
from mlserving.predictions.commit import Commits
from mlserving.predictions.decode import Decoded, decode
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.recorder_metrics import RecorderMetrics
from mlserving.predictions.records import MOST_VALUE_BYTES, log_folder
from mlserving.predictions.signatures import Signatures
from mlserving.predictions.spool import SpoolReader, is_short_of_space, size_of

MOST_ROWS, MOST_SECONDS = 200_000, 60.0
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SEGMENT_BYTES = 32 << 20
_LABEL_SECONDS, _CONFIG_SECONDS, _UPKEEP_SECONDS = 2.0, 1.0, 3600.0
_SHORT_BYTES = 1 << 20  # with less space in the spool nothing waits for company
_PAUSE = 0.1

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command's options say."""

    spool: Path
    predictions: Path
    config: Path
    metrics: Path | None = None
    most_rows: int = MOST_ROWS
    """Rows of a file."""
    most_seconds: float = MOST_SECONDS
    """So long rows wait for company."""
    most_value_bytes: int = MOST_VALUE_BYTES
    """A larger value is left out."""
    keep_days: int | None = None
    """Days older than this are deleted."""


class Recorder:
    """One spool's recorder. Hold the spool's lock (`commit.locked`) while it runs."""

    def __init__(self, options: Options, *, signatures: Signatures | None = None) -> None:
        self._options = options
        self._metrics = RecorderMetrics()
        self._reader = SpoolReader(options.spool)
        self._commits = Commits(options.spool, options.predictions)
        self._signatures = signatures or Signatures(options.spool)
        self._settings = gateway_settings.FILE.read(options.config)
        self._batch, self._taken, self._taken_bytes, self._since = Batch(), list[Path](), 0, 0.0
        self._ahead = deque[Path]()  # finished segments that are not taken yet
        self._recovered = False
        self._chores = [
            _Every(_CONFIG_SECONDS, self._read_settings), _Every(_LABEL_SECONDS, self._collect_labels),
            _Every(_UPKEEP_SECONDS, self._keep_up), _Every(1.0, self.tell),
        ]  # fmt: skip

    def run(self, stopping: threading.Event, is_orphaned: Callable[[], bool] = lambda: False) -> None:
        """Take and write until told to stop, or left by the gateway; then what is there is still written, if the disk takes it."""
        while not stopping.is_set() and not is_orphaned():
            for chore in self._chores:
                chore.when_due()
            if not self._step(due=False):
                stopping.wait(_PAUSE)
        while self._step(due=True):
            pass
        self._collect_labels()
        self.tell()

    def tell(self) -> None:
        """Write the figures to their file."""
        self._metrics.spool_bytes.set(size_of(self._options.spool))
        if self._options.metrics is not None:
            self._metrics.write(self._options.metrics)

    def _step(self, *, due: bool) -> bool:
        """Take a segment, and write what is ready. False where there is nothing to do now, or the disk or a server must come back first."""
        try:
            self._recover()
            took = self._take()
            if self._taken and (self._is_ready() or (due and not took)):
                self._write()
                return True
        except OSError as error:
            self._metrics.write_errors.inc()
            self._recovered = False
            _log.warning("the log cannot be written; the spool keeps what it holds", error=str(error))
            return False
        return took

    def _recover(self) -> None:
        """After a start, and after each failure: finish what was decided. Where that was our own batch, it is written."""
        if not self._recovered:
            self._commits.recover()
            self._recovered = True
            self._ahead.clear()
            if not all(path.exists() for path in self._taken):
                self._begin_anew()

    def _is_ready(self) -> bool:
        old = time.monotonic() - self._since > self._options.most_seconds or is_short_of_space(self._options.spool, _SHORT_BYTES)
        return old or self._batch.rows >= self._options.most_rows or self._taken_bytes >= _SEGMENT_BYTES

    def _take(self) -> bool:
        """Decode the oldest finished segment that is not taken yet, if there is one and there is room for it."""
        if self._taken and (self._batch.rows >= self._options.most_rows or self._taken_bytes >= _SEGMENT_BYTES):
            return False
        if not self._ahead:
            self._ahead.extend(path for path in self._reader.finished() if path not in {*self._taken})
        if not self._ahead:
            return False
        path = self._ahead[0]
        size, torn = path.stat().st_size, self._reader.torn
        try:
            decoded = [(exchange, self._decoded(exchange)) for exchange in self._reader.read(path)]
        except Unavailable:
            return False
        for exchange, rows in decoded:
            self._add(exchange, rows)
        if self._reader.torn > torn:  # the gateway was killed while it wrote
            self._metrics.dropped.labels("", "torn").inc()
        if not self._taken:
            self._since = time.monotonic()
        self._taken.append(self._ahead.popleft())
        self._taken_bytes += size
        return True

    def _add(self, exchange: Exchange, decoded: Decoded | str) -> None:
        if isinstance(decoded, str):
            self._metrics.dropped.labels(exchange.model if exchange.model in self._settings.models else "", decoded).inc()
        else:
            self._batch.add(exchange, decoded)
            self._metrics.predicted(exchange, decoded)

    def _decoded(self, exchange: Exchange) -> Decoded | str:
        """The rows, or the reason why there are none. Raises Unavailable where the signature is not known yet."""
        model = self._settings.models.get(exchange.model)
        if model is None or not _MODEL_NAME.fullmatch(exchange.model):
            return "unknown_model"
        try:
            time_of(exchange)
            signatures = self._signatures.of(self._settings, exchange.model, exchange.version, exchange.track) if exchange.version else {}
            return decode(exchange, model.log, signatures, self._options.most_value_bytes)
        except (Undecodable, OverflowError):
            return "undecodable"

    def _write(self) -> None:
        """Files for all rows that were taken, and the segments gone."""
        staged = [made for group in self._batch.groups() if (made := self._stage(group)) is not None]
        self._commits.commit(staged, self._taken)
        self._metrics.last_write.set(time.time())
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._batch, self._taken, self._taken_bytes = Batch(), [], 0

    def _stage(self, group: Group) -> tuple[Path, Path] | None:
        try:
            table = group.table()
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:  # what decode let pass and Arrow does not
            _log.error("rows cannot be written", model=group.model, version=group.version, rows=group.rows, error=type(error).__name__)
            self._metrics.dropped.labels(group.model, "unwritable").inc(group.rows)
            return None
        name = f"{self._commits.name}-{time.time_ns()}-{uuid.uuid4().hex[:6]}.parquet"
        files.write(files.sliced(table), table.schema, self._commits.staging / name, version=group.version)
        return self._commits.staging / name, log_folder(self._options.predictions, group.model, group.time) / name

    def _read_settings(self) -> None:
        try:
            self._settings = gateway_settings.FILE.read(self._options.config)
        except ServingError as error:  # what was read before stays in force
            _log.warning("the settings cannot be read", error=str(error))

    def _collect_labels(self) -> None:
        try:
            for (model, source), count in labels.collect(self._options.predictions).items():
                self._metrics.labels.labels(model, source).inc(count)
        except OSError as error:
            self._metrics.write_errors.inc()
            _log.warning("labels cannot be written; their journal keeps them", error=str(error))

    def _keep_up(self) -> None:
        try:
            upkeep.keep_up(self._options.predictions, datetime.now(UTC), self._options.keep_days)
        except (ServingError, OSError) as error:
            _log.warning("days that are over could not be merged or deleted", error=str(error))


class _Every:
    """Something to do now and then."""

    def __init__(self, seconds: float, work: Callable[[], None]) -> None:
        self._seconds, self._work = seconds, work
        self._due = 0.0

    def when_due(self) -> None:
        """Do it, if it is time."""
        if time.monotonic() >= self._due:
            self._work()
            self._due = time.monotonic() + self._seconds
