"""The model store: the folder in which training leaves models and from which servers pick them up.

`<store>/<model>/<version>/saved_model.pb`, versions being integers: the layout that TensorFlow Serving watches. Whoever
watches acts on a version folder as soon as it sees it, so a version appears by one rename, complete and flushed to disk,
and goes by one rename too. What is being written or deleted has a name that begins with a dot, which servers ignore.

One lock file for each model (`.lock`, held with flock, so a killed process lets go of it) keeps writers apart; readers need none.

Beside the graph a version folder may hold `assets.extra`: files that servers read and the graph does not. Their names are here,
for those who write them and those who read them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mlserving.errors import ConfigError, Conflict, Unavailable

EXTRA = "assets.extra"
WARMUP_REQUESTS = Path(EXTRA, "tf_serving_warmup_requests")
"""In a version folder: a TFRecord of PredictionLog, which TensorFlow Serving and our server replay before the version takes traffic."""
GOLDEN_REQUESTS = Path(EXTRA, "golden_requests.jsonl")
"""In a version folder: one `{"inputs": …, "outputs": …}` a line, requests with the answers of the version as it was published."""

TRAINING_STATISTICS = Path(EXTRA, "training_statistics.pb")
"""In a version folder: TFDV's DatasetFeatureStatisticsList of the rows that trained it, which drift is measured against. A second data set
in it, named `predictions`, describes what the version answered on the sealed test set.
"""
MONITOR_SETTINGS = Path(EXTRA, "monitor.json")
"""In a version folder: how it wants to be watched (`mlserving.monitor.settings`)."""
REVIEW_SETTINGS = Path(EXTRA, "review.json")
"""In a version folder: how much of it people look at (`mlserving.review.settings`)."""
SERVING_SETTINGS = Path(EXTRA, "serving.json")
"""In a version folder: how requests to it are dealt and logged (`mlserving.tracks.carried`)."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LOCK = ".lock"
_ABSENT = (FileNotFoundError, NotADirectoryError)


def models(store: Path) -> list[str]:
    """The names of the models that have at least one version, sorted."""
    try:
        return sorted(entry.name for entry in store.iterdir() if _MODEL_NAME.fullmatch(entry.name) and versions(store, entry.name))
    except _ABSENT:
        return []


def versions(store: Path, model: str) -> list[int]:
    """The published versions of `model`, ascending; an empty list where there is no such model."""
    return versions_in(store / model)


def versions_in(base_path: Path) -> list[int]:
    """The version folders directly below `base_path`, ascending.

    A name counts when it is a number as Python would print it: `007`, `+7` and `.7.tmp` are not versions.
    """
    try:
        with os.scandir(base_path) as entries:
            return sorted(int(entry.name) for entry in entries if _is_version(entry.name) and entry.is_dir())
    except _ABSENT:
        return []


def digest(version_folder: Path) -> str:
    """SHA-256 of a version's content, in hexadecimal: of `<sha256 of the file>  <relative path>` lines, sorted by path.

    A copy of a version anywhere has the same digest, so whoever fetched one can tell whether it is whole.

    Raises:
        Unavailable: a file cannot be read.
    """
    try:
        files = sorted(path for path in version_folder.rglob("*") if path.is_file())
        lines = [f"{_file_digest(path)}  {path.relative_to(version_folder).as_posix()}\n" for path in files]
    except OSError as error:
        raise Unavailable(f"{version_folder} cannot be read: {error}. Check the folder, then type the same command again.") from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def publish_version(store: Path, model: str, version: int, source: Path, complete: Callable[[Path], None] | None = None) -> Path:
    """Copy the SavedModel in `source` to `<store>/<model>/<version>` so that it appears there whole or not at all.

    Publishing the same content twice is not an error: a run that was killed after the rename may do it again.

    Args:
        store: the model store.
        model: the model's name.
        version: a number above 0.
        source: the SavedModel; it is left as it is.
        complete: called with the copy before anybody can see it. It may add files below `assets.extra`, and what it raises
            stops the publishing (an OSError is taken for the disk's). It is not called where the version is there already.

    Raises:
        ConfigError: `model` or `version` cannot be a folder's name, or `source` is not a SavedModel.
        Conflict: the version is there with other content. A published version never changes.
        Unavailable: the disk is full or cannot be written. Nothing was published.
    """
    _check(model, version, source)
    target = store / model / str(version)

    def fill(fresh: Path) -> None:
        copy_folder(source, fresh)
        if complete is not None:
            complete(fresh)

    try:
        with _writing(store, model):
            if target.exists():
                return _same_or_conflict(source, target)
            _write_then_rename(target, fill)
    except OSError as error:
        raise _unavailable(error, target) from error
    return target


def place_version(store: Path, model: str, version: int, fill: Callable[[Path], None]) -> Path:
    """Have `fill` write `<store>/<model>/<version>`, so that it appears whole or not at all; what is there already is replaced.

    For whoever brings a version from elsewhere (`mlserving.fetch`). `fill` gets a folder that does not exist yet and makes it; what it raises
    stops the placing, with nothing left behind.

    Raises:
        Unavailable: the disk is full or cannot be written, or `fill` met an OSError.
    """
    target = store / model / str(version)
    try:
        with _writing(store, model):
            if target.exists():
                _remove(target)
            _write_then_rename(target, fill)
    except OSError as error:
        raise _unavailable(error, target) from error
    return target


def prune(store: Path, model: str, keep: int, protect: set[int]) -> list[int]:
    """Delete all but the newest `keep` versions, never one of `protect`. Returns what was deleted, ascending.

    Raises:
        ConfigError: `keep` is below 1: the store would be left without a model.
        Unavailable: a folder cannot be deleted.
    """
    if keep < 1:
        raise ConfigError(f"keep is {keep}, but at least one version of {model} must stay. Use keep=1 or more.")
    try:
        with _writing(store, model):
            doomed = [version for version in versions(store, model)[:-keep] if version not in protect]
            for version in doomed:
                _remove(store / model / str(version))
    except OSError as error:
        raise _unavailable(error, store / model) from error
    return doomed


@contextlib.contextmanager
def _writing(store: Path, model: str) -> Iterator[None]:
    """Be the model's only writer. A folder whose name begins with a dot then is a dead writer's: it is deleted first."""
    folder = store / model
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in [path for path in folder.iterdir() if path.name.startswith(".") and path.is_dir()]:
            shutil.rmtree(path)
        yield


def _write_then_rename(target: Path, fill: Callable[[Path], None]) -> None:
    fresh = _dotted(target)
    try:
        fill(fresh)
        _flush_all(fresh)
        fresh.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder. shutil.copytree would go on after a full disk and then hide its error number."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            copy_folder(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)


def _flush_all(folder: Path) -> None:
    """Have a folder and all that is in it on the disk: after a power cut a renamed folder could hold empty files otherwise."""
    for entry in folder.iterdir():
        if entry.is_dir():
            _flush_all(entry)
        else:
            _flush(entry)
    _flush(folder)


def _remove(folder: Path) -> None:
    doomed = _dotted(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _dotted(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same_or_conflict(source: Path, target: Path) -> Path:
    """`target`, if it holds what `source` does; below `assets.extra` it may hold more, which `complete` added."""
    ours, theirs = _files(source), _files(target)
    added = {name for name in theirs - ours if name.parts[0] == EXTRA}
    if ours == theirs - added and all(filecmp.cmp(source / name, target / name, shallow=False) for name in ours):
        return target
    raise Conflict(
        f"{target} is there already with another content, and a published version never changes. `millrace run` publishes under the next number."
    )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def _is_version(name: str) -> bool:
    return name.isdecimal() and name == str(int(name))


def _check(model: str, version: int, source: Path) -> None:
    if not _MODEL_NAME.fullmatch(model):
        raise ConfigError(f"{model!r} cannot name a model: use letters, digits, '_', '-' and '.', and begin with a letter or digit.")
    if version < 1:
        raise ConfigError(f"{version} cannot be a version of {model}: versions are the integers from 1 on.")
    if not (source / "saved_model.pb").is_file():
        raise ConfigError(f"{source} is not a SavedModel: it has no saved_model.pb. Export the model there first.")


def _unavailable(error: OSError, path: Path) -> Unavailable:
    advice = "Free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "Check that the folder can be written"
    return Unavailable(
        f"The model store could not be written: {error.strerror or error} ({path}). Nothing was published there. {advice} and type the same command again."
    )
