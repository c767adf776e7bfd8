"""`POST /v1/labels`: from the bytes of a request to `mlserving.predictions.labels`, which checks and keeps them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path


class StoresLabels:
    """Keeps labels under the predictions' folder, in a thread: a disk may be slow, and requests do not wait for it."""

    def __init__(self, predictions: Path | None) -> None:
        self._predictions = predictions

    async def __call__(self, body: bytes) -> tuple[int, bytes]:
        """The HTTP status and the JSON to answer with."""
        if self._predictions is None:
            return 503, _error("labels are kept only where the gateway was started with --predictions DIR")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            return 400, _error(f"the body is no JSON: {error}")
        return await asyncio.to_thread(self._store, self._predictions, document)

    def _store(self, predictions: Path, document: object) -> tuple[int, bytes]:
        raise NotImplementedError


def _error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()
