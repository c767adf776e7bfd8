"""Keeps the library in step with the disk and with the model configuration, once a second, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from mlserving.errors import ConfigError
from mlserving.server.library import Library
from mlserving.server.model_config import Wanted
from mlserving.server.versions import ServedModel

log = logging.getLogger(__name__)


class Watcher:
    """Asks `wanted` what to serve and lets the library get there. `interval` in seconds."""

    def __init__(self, library: Library, wanted: Wanted, interval: float = 1.0) -> None:
        self._library = library
        self._wanted = wanted
        self._interval = interval
        self._models: list[ServedModel] = []
        self._read: list[ServedModel] | None = None
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def settle(self) -> None:
        """Read the configuration and load what is missing, until nothing is left to do.

        Raises:
            ConfigError: the configuration cannot be read. What was served before still is.
        """
        with self._turn:
            read = self._wanted()
            if read != self._read:  # a configuration that came by `reload` stands until the file says something new
                self._read = self._models = read
            self._reconcile()

    def reload(self, models: Sequence[ServedModel]) -> None:
        """Serve `models` from now on (HandleReloadConfigRequest). Returns when they are loaded or have failed to load."""
        with self._turn:
            self._models = list(models)
            self._reconcile()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; waits for a load that is under way."""
        self._stopping.set()
        self._thread.join()

    def _reconcile(self) -> None:
        while self._library.reconcile(self._models) and not self._stopping.is_set():
            pass

    def _watch(self) -> None:
        complaint = ""
        while not self._stopping.wait(self._interval):
            try:
                self.settle()
                complaint = ""
            except (ConfigError, OSError) as error:  # said once, not each second
                if str(error) != complaint:
                    log.error("%s", error)
                complaint = str(error)
            except Exception:  # the outermost loop: whatever happens, the loaded versions go on answering and the disk is looked at again
                log.exception("watching the model store failed")
