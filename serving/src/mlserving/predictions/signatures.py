"""The signatures of a version: what the gateway noted of it, or else asked of the track that serves it, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mlserving.client.rest_client import RestClient
from mlserving.client.signature import ModelSpec, Signature
from mlserving.errors import ServingError, Unavailable
from mlserving.gateway.settings import Backend, GatewaySettings, Track
from mlserving.predictions.noted_signatures import noted

_TIMEOUT = 2.0
_PATIENCE = 30.0
_PAUSE = 2.0


class Signatures:
    """By model and version, which never change. `now` is a steady clock, in seconds."""

    def __init__(self, spool: Path | None = None, *, patience: float = _PATIENCE, now: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._found: dict[tuple[str, int], Mapping[str, Signature]] = {}
        self._missed: dict[tuple[str, int], float] = {}  # since when
        self._asked: dict[tuple[str, int], float] = {}
        self._patience, self._now = patience, now

    def of(self, settings: GatewaySettings, model: str, version: int, track: str) -> Mapping[str, Signature]:
        """The signatures, or {} where nobody could tell for so long that waiting has no use: the version is gone.

        Raises:
            Unavailable: nobody told, but may soon. Ask again.
        """
        key = (model, version)
        if key not in self._found and self._spool is not None and (known := noted(self._spool, model, version)) is not None:
            self._found[key] = known
        if key not in self._found and self._now() - self._asked.get(key, -_PAUSE) >= _PAUSE:
            self._asked[key] = self._now()
            self._ask(settings.models[model].tracks, ModelSpec(name=model, version=version), track)
        if key in self._found:
            return self._found[key]
        since = self._missed.setdefault(key, self._now())
        if self._now() - since < self._patience:
            raise Unavailable(f"Nobody tells the signatures of {model} version {version} now.")
        return {}

    def _ask(self, tracks: Mapping[Track, Backend], model: ModelSpec, track: str) -> None:
        """Ask its own track first; after a promotion another one serves the version."""
        for name in sorted(tracks, key=lambda each: each != track):
            try:
                with RestClient(tracks[name].rest, timeout=_TIMEOUT) as client:
                    self._found[model.name, model.version or 0] = client.signatures(model)
                    return
            except (ServingError, KeyError, TypeError, AttributeError):  # not served there, or no model server
                continue
