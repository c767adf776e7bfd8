"""What each version said of its inputs and outputs, noted beside the spool before the version is asked anything.

JSON carries no types, so the recorder needs the signature of the version that answered. By the time it looks, the version may have been
replaced; the gateway was there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from mlserving.gateway.endpoints import Endpoint
from mlserving.predictions.noted_signatures import is_noted, note

_log = structlog.get_logger()


class Notes:
    """Of one spool; without a spool nothing is noted."""

    def __init__(self, spool: Path | None) -> None:
        self._spool = spool

    async def keep(self, endpoint: Endpoint, versions: tuple[int, ...]) -> None:
        """Note what is not noted yet of `versions`. Whatever goes wrong, the server is used: the recorder asks for itself then."""
        if self._spool is None:
            return
        for version in versions:
            try:
                if not is_noted(self._spool, endpoint.model, version):
                    body = await endpoint.metadata(version)
                    await asyncio.to_thread(note, self._spool, endpoint.model, version, body)
            except OSError as error:
                _log.warning("a signature cannot be noted", model=endpoint.model, version=version, error=str(error))
