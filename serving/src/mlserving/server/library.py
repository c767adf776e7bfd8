"""The versions that are loaded, who is reading them, and how the next one takes over.

One thread at a time calls `reconcile` (see `mlserving.server.watcher`): it looks at the disk, asks `mlserving.server.versions.plan`, and loads
or retires. Requests come from many threads and borrow a version with `borrowed`. They never wait for a load. A switch is one
assignment of a new mapping, and a version is closed when the last request that borrowed it is done, so no request is lost.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mlserving.client.ask import VersionStatus
from mlserving.client.signature import ModelSpec
from mlserving.errors import ServingError
from mlserving.server.answer_errors import RequestError, invalid
from mlserving.server.versions import ServedModel, plan
from mlserving.store import versions_in

if TYPE_CHECKING:
    from mlserving.server.servable import Servable

log = logging.getLogger(__name__)

Load = Callable[[str, int, Path], "Servable"]
"""Load model, version, folder. Raises ServingError when the folder is no working SavedModel."""

_Fingerprint = frozenset[tuple[str, int, int]]


@dataclass(slots=True)
class _Volume:
    """A loaded version and the number of requests that are reading it."""

    model: str
    version: int
    servable: Servable
    readers: int = 0
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> bool:
        """Begin to read; False when it was closed in the meantime."""
        with self.lock:
            self.readers += not self.closed
            return not self.closed

    def leave(self) -> None:
        with self.lock:
            self.readers -= 1

    def close_if_idle(self) -> bool:
        """Close it unless somebody reads. True when it is closed."""
        with self.lock:
            if self.readers:
                return False
            self.closed = True
        self.servable.close()
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shelf:
    """A model as requests see it. Replaced as a whole, never changed."""

    model: ServedModel
    volumes: Mapping[int, _Volume]


class Library:
    """All loaded versions of all models."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._shelves: Mapping[str, _Shelf] = MappingProxyType({})
        self._states: dict[str, dict[int, VersionStatus]] = {}
        self._failed: dict[tuple[str, int], _Fingerprint] = {}
        self._retired: list[_Volume] = []

    @contextlib.contextmanager
    def borrowed(self, spec: ModelSpec) -> Iterator[Servable]:
        """The version that `spec` means, kept open while the caller answers with it.

        Raises:
            RequestError: no such model, version or label is served.
        """
        volume = self._find(spec)
        while not volume.enter():  # it was retired between finding and entering: its successor is on the shelf by now
            volume = self._find(spec)
        try:
            yield volume.servable
        finally:
            volume.leave()

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """All known versions of the model, newest first, or the one that `spec` names. Raises RequestError as `borrowed` does."""
        known = self._states.get(spec.name)
        if not known:
            raise RequestError("NOT_FOUND", f"Could not find any versions of model {spec.name}. {self._offer()}")
        version = self._version_of(self._shelves[spec.name], spec) if spec.label and spec.name in self._shelves else spec.version
        if version is None:
            return sorted(known.values(), key=lambda state: state.version, reverse=True)
        if version not in known:
            raise RequestError("NOT_FOUND", f"Could not find version {version} of model {spec.name}. {self._offer(spec.name)}")
        return [known[version]]

    def available(self) -> dict[str, list[int]]:
        """The versions that answer now, by model, ascending."""
        return {name: sorted(shelf.volumes) for name, shelf in sorted(self._shelves.items())}

    def failures(self) -> dict[str, list[VersionStatus]]:
        """The versions that could not be loaded, by model."""
        return {name: failed for name, states in self._states.items() if (failed := [state for state in states.values() if state.error])}

    def reconcile(self, models: Sequence[ServedModel]) -> bool:
        """Take one step towards serving `models`: for each, load one version or retire some. False when nothing is left to do."""
        for name in set(self._shelves) - {model.name for model in models}:
            self._retire(name, list(self._shelves[name].volumes))
            self._shelves = MappingProxyType({key: shelf for key, shelf in self._shelves.items() if key != name})
        moved = [self._step(model) for model in models]
        self._retired = [volume for volume in self._retired if not self._closed(volume)]
        return any(moved)

    def close(self) -> None:
        """Retire everything and close what nobody reads."""
        self.reconcile([])

    def _step(self, model: ServedModel) -> bool:
        shelf = self._shelves.get(model.name) or _Shelf(model=model, volumes=MappingProxyType({}))
        if shelf.model.base_path != model.base_path:  # another folder's versions are other versions, whatever their numbers
            self._retire(model.name, list(shelf.volumes))
            shelf = _Shelf(model=model, volumes=MappingProxyType({}))
        self._put(replace(shelf, model=model))
        on_disk = versions_in(model.base_path)
        failed = {version for version in on_disk if self._still_broken(model, version)}
        steps = plan(model.policy, on_disk=on_disk, loaded=shelf.volumes, failed=failed)
        if steps.load:
            self._add(model, steps.load[0])
        elif steps.unload:
            self._retire(model.name, steps.unload)
        return bool(steps.load or steps.unload)

    def _still_broken(self, model: ServedModel, version: int) -> bool:
        before = self._failed.get((model.name, version))
        return before is not None and before == _fingerprint(model.base_path / str(version))

    def _add(self, model: ServedModel, version: int) -> None:
        folder = model.base_path / str(version)
        fingerprint = _fingerprint(folder)  # taken before: what changes while it is read counts as a change
        self._state(model.name, version, "LOADING")
        try:
            servable = self._load(model.name, version, folder)
        except ServingError as error:
            self._failed[model.name, version] = fingerprint
            self._state(model.name, version, "END", str(error))
            log.error("%s version %d was not loaded: %s", model.name, version, error)
            return
        self._failed.pop((model.name, version), None)
        shelf = self._shelves[model.name]
        volume = _Volume(model=model.name, version=version, servable=servable)
        self._put(replace(shelf, volumes=MappingProxyType({**shelf.volumes, version: volume})))
        self._state(model.name, version, "AVAILABLE")
        log.info("%s version %d is available", model.name, version)

    def _retire(self, name: str, versions: Sequence[int]) -> None:
        shelf = self._shelves[name]
        self._put(replace(shelf, volumes=MappingProxyType({v: volume for v, volume in shelf.volumes.items() if v not in versions})))
        for version in versions:
            self._state(name, version, "UNLOADING")
            self._retired.append(shelf.volumes[version])

    def _closed(self, volume: _Volume) -> bool:
        closed = volume.close_if_idle()
        if closed:
            self._state(volume.model, volume.version, "END")
            log.info("%s version %d is unloaded", volume.model, volume.version)
        return closed

    def _put(self, shelf: _Shelf) -> None:
        self._shelves = MappingProxyType({**self._shelves, shelf.model.name: shelf})

    def _state(self, name: str, version: int, state: str, error: str = "") -> None:
        status = VersionStatus(version=version, state=state, error=error)
        self._states = {**self._states, name: {**self._states.get(name, {}), version: status}}

    def _find(self, spec: ModelSpec) -> _Volume:
        shelf = self._shelves.get(spec.name)
        version = self._version_of(shelf, spec) if shelf else None
        if shelf is None or version is None or version not in shelf.volumes:
            wish = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise RequestError("NOT_FOUND", f"Servable not found for request: {wish}. {self._offer(spec.name)}")
        return shelf.volumes[version]

    def _version_of(self, shelf: _Shelf, spec: ModelSpec) -> int | None:
        if spec.version is not None:
            return spec.version
        if not spec.label:
            return max(shelf.volumes, default=None)
        if spec.label not in shelf.model.labels:
            known = ", ".join(sorted(shelf.model.labels)) or "none"
            raise invalid(f"Unrecognized servable version label: {spec.label}. Labels of {spec.name}: {known}.")
        return shelf.model.labels[spec.label]

    def _offer(self, name: str = "") -> str:
        available = self.available()
        if name in available:
            return f"Served versions of {name}: {', '.join(map(str, available[name])) or 'none'}."
        return f"Models served here: {', '.join(available) or 'none'}."


def _fingerprint(folder: Path) -> _Fingerprint:
    """Names, sizes and times of the files below `folder`: equal as long as nobody has touched it."""
    found = set()
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found.add((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
