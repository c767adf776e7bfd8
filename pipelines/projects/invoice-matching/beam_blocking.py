"""`blocking` for many rows: the same keys, the same pairs, spread over Beam's workers.

```
transfers ─ keys ┐
                 ├ by key's shard ─ joined ─ by transfer's shard ─ best
invoices ── keys ┘
```

What goes through Beam are arrays, not rows: a chunk of rows becomes one array of keys for each shard, a shard of keys one array of pairs
for each shard of transfers. So Beam's own work, which is done for each element, does not grow with the rows; and a key's block is whole
in its shard, a transfer in its own, so the answer is that of `blocking.found` whatever the number of shards. Pairs come back as files in a
folder that every worker must reach: Beam's own `temp_location`, or a temporary one where all workers are on this machine.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import apache_beam
import blocking
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from blocking import PAIRS, Keys, Limits, Pairs
from ledger import Ledger

from mlpipelines.errors import ConfigError
from mlpipelines.project import Beam
from mlpipelines.transformation.beam_options import beam_arguments
from mlpipelines.transformation.beam_pipeline import quiet_beam

CHUNK_ROWS = 10_000
SHARDS = 32
"""Of keys, and of transfers: a shard's pairs must fit into a worker's memory."""
_TRANSFER_COLUMNS = ["booked_at", "payer", "reference", "amount", "currency", "home_amount"]
_INVOICE_COLUMNS = ["number", "customer", "issued_at", "amount", "currency", "home_amount", "closed_at"]
Chunk = tuple[int, pa.Table]


def found(ledger: Ledger, limits: Limits, *, monthly: bool = True, beam: Mapping[str, Any], shards: int = SHARDS) -> Pairs:
    """As `blocking.found`, on the runner that `beam` names (`runner` and `options`, as in project.yaml).

    Raises:
        ConfigError: an option of Beam is wrong, or workers elsewhere have no `temp_location`.
    """
    where = Beam(**beam)
    options = PipelineOptions(beam_arguments(where, "invoice-candidates"))
    with quiet_beam(), _place_for_all(where) as place:
        pipeline = apache_beam.Pipeline(options=options)
        keys = (
            pipeline | "Transfers" >> _keys_of(ledger.transfers.select(_TRANSFER_COLUMNS), partial(_transfer_keys, monthly, shards)),
            pipeline | "Invoices" >> _keys_of(ledger.invoices.select(_INVOICE_COLUMNS), partial(_invoice_keys, shards)),
        )
        by_key = keys | "Keys" >> apache_beam.Flatten() | "ByKey" >> apache_beam.GroupByKey()
        by_transfer = by_key | "Join" >> apache_beam.FlatMap(partial(_joined, limits, shards)) | "ByTransfer" >> apache_beam.GroupByKey()
        _ = by_transfer | "Best" >> apache_beam.Map(partial(_write_best, limits, place))
        pipeline.run().wait_until_finish()
        pairs = np.concatenate([np.zeros(0, PAIRS), *map(_read, _files(place))])
    return pairs[np.lexsort((pairs["invoice"], pairs["transfer"]))]


@contextmanager
def _place_for_all(beam: Beam) -> Iterator[str]:
    """What the names of this call's files begin with, where every worker reaches them; they are gone afterwards."""
    shared = beam.options.get("temp_location")
    if shared is None and beam.runner != "direct":
        raise ConfigError(
            f"source.options.beam.options.temp_location: the workers of {beam.runner!r} are elsewhere and leave their pairs there. Name a folder or "
            "a bucket that all of them reach in project.yaml, then `millrace run` again."
        )
    with tempfile.TemporaryDirectory(prefix="pairs-") as here:
        folder = here if shared is None else str(shared)
        if not FileSystems.exists(folder):
            FileSystems.mkdirs(folder)
        place = FileSystems.join(folder, f"pairs-{uuid.uuid4().hex}-")
        try:
            yield place
        finally:
            FileSystems.delete(_files(place))


def _files(place: str) -> list[str]:
    (found,) = FileSystems.match([f"{place}*"])
    return [file.path for file in found.metadata_list]


def _keys_of(table: pa.Table, keys: Any) -> Any:
    chunks = [(at, table.slice(at, CHUNK_ROWS).combine_chunks()) for at in range(0, table.num_rows, CHUNK_ROWS)]
    return apache_beam.Create(chunks) | apache_beam.FlatMap(keys)


def _transfer_keys(monthly: bool, shards: int, chunk: Chunk) -> Iterator[tuple[int, Keys]]:
    first, rows = chunk
    yield from _sharded(blocking.keys_of_transfers(rows, first, monthly=monthly), "key", shards)


def _invoice_keys(shards: int, chunk: Chunk) -> Iterator[tuple[int, Keys]]:
    first, rows = chunk
    yield from _sharded(blocking.keys_of_invoices(rows, first), "key", shards)


def _joined(limits: Limits, shards: int, element: tuple[int, Iterable[Keys]]) -> Iterator[tuple[int, Pairs]]:
    yield from _sharded(blocking.joined(np.concatenate(list(element[1])), limits), "transfer", shards)


def _write_best(limits: Limits, place: str, element: tuple[int, Iterable[Pairs]]) -> None:
    shard, pairs = element
    with FileSystems.create(f"{place}{shard:05d}", mime_type="application/octet-stream") as file:
        file.write(blocking.best(np.concatenate(list(pairs)), limits).tobytes())


def _read(path: str) -> Pairs:
    with FileSystems.open(path, mime_type="application/octet-stream") as file:
        return np.frombuffer(file.read(), PAIRS)


def _sharded(values: np.ndarray[Any, Any], field: str, shards: int) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """The values of each shard, by one of their fields."""
    of = (values[field].astype(np.uint64) % np.uint64(shards)).astype(np.int64)
    ordered = values[np.argsort(of, kind="stable")]
    ends = np.cumsum(np.bincount(of, minlength=shards))
    for shard, part in enumerate(np.split(ordered, ends[:-1])):
        if len(part):
            yield shard, part
