"""`POST /v1/labels`: from the bytes of a request to `mlserving.predictions.labels`, which checks them and has them on the disk before we answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from mlserving.predictions.labels import LabelStore


class StoresLabels:
    """Keeps labels while the context lasts, in threads: a disk may be slow, and requests do not wait for it."""

    def __init__(self, predictions: Path | None) -> None:
        self._store: LabelStore | None = None
        if predictions is not None:
            from mlserving.predictions.labels import LabelStore  # which brings Arrow along

            self._store = LabelStore(predictions)

    async def __call__(self, body: bytes) -> tuple[int, bytes]:
        """The HTTP status and the JSON to answer with."""
        if self._store is None:
            return 503, json.dumps({"error": "labels are kept only where the gateway was started with --predictions DIR"}).encode()
        return await asyncio.to_thread(self._store.answer, body)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish the journal: the recorder makes Parquet of it."""
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
