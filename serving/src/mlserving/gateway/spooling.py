"""Between the relay and the spool: opens it, flushes it each second, closes it, and counts what was dropped."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlserving.gateway.metrics import Metrics
from mlserving.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from mlserving.predictions.exchange import Exchange

_FLUSH_SECONDS = 0.5
_MIB = 2**20


class Spooling:
    """The spool's writer while the gateway runs; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, settings: GatewaySettings, metrics: Metrics) -> None:
        self._metrics = metrics
        self.log: Spooling | None = None
        if folder is not None:
            from mlserving.predictions.spool import SpoolWriter

            self._writer = SpoolWriter(folder, int(settings.spool.most_mb * _MIB))
            self.log = self
            metrics.dropped = self._writer.dropped

    def append(self, exchange: Exchange) -> bool:
        """See relay.Log."""
        kept: bool = self._writer.append(exchange)
        if kept:
            self._metrics.spooled(exchange.model, exchange.track)
        return kept

    async def __aenter__(self) -> Self:
        """Begin to flush."""
        self._task = asyncio.create_task(self._keep_flushing()) if self.log else None
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Hand over what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await asyncio.to_thread(self._writer.close)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._writer.flush()
