"""`python -m mlserving fetch`: one version of a model, from the store to a folder of a pod's own, and nothing but what was promised.

On a cluster this runs before the model server starts (`helm/model-serving`). Whoever sets a version names its digest with it, so a server never
loads what somebody wrote over it later, nor half of it. A version that is there already and whole is left as it is: a pod's containers may
start many times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlserving import store
from mlserving.errors import ConfigError, Conflict, Unavailable

_DESCRIPTION = """\
Copy version N of MODEL from a model store to a folder, verify it, and have it on the disk.

The store is a folder (a volume, a bucket that is mounted) or gs://BUCKET[/PATH], which is read with the identity of the machine or pod."""

_EPILOG = """\
examples:
  python -m mlserving fetch transactions 7 --store /store --to /models --digest 5f2c…
  python -m mlserving fetch transactions 7 --store gs://models/store --to /models
  python -m mlserving digest .millrace/models/transactions/7          the digest to promise

exit codes: 0 it is there, 2 no such version, 4 the store or the disk does not answer, 5 the store holds something else than was promised"""

_BUCKET = "gs://"
_BUFFER = 8 * 1024 * 1024


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    parser = argparse.ArgumentParser(
        prog="python -m mlserving fetch", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("version", metavar="N", type=int, help="its version")
    parser.add_argument("--store", required=True, metavar="STORE", help="a folder, or gs://BUCKET[/PATH]")
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="the version appears as DIR/MODEL/N")
    parser.add_argument("--digest", default="", metavar="SHA256", help="what it must be; without it, whatever the store holds is taken")
    arguments = parser.parse_args(argv)
    folder = fetch(arguments.store, arguments.model, arguments.version, to=arguments.to, digest=arguments.digest)
    print(f"{arguments.model} version {arguments.version} is in {folder}, sha256 {store.digest(folder)}", flush=True)
    return 0


def digest_main(argv: list[str]) -> int:
    """Print the digest of a version's folder, to be promised to those who fetch it."""
    parser = argparse.ArgumentParser(prog="python -m mlserving digest", description="Print the digest of a version's folder.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="for example .millrace/models/transactions/7")
    folder = parser.parse_args(argv).folder
    if not (folder / "saved_model.pb").is_file():
        raise ConfigError(f"{folder} is no version of a model: it has no saved_model.pb. Name one, for example .millrace/models/MODEL/7")
    print(store.digest(folder))
    return 0


def fetch(source: str, model: str, version: int, *, to: Path, digest: str = "") -> Path:
    """`<to>/<model>/<version>`, a verified copy of the store's.

    Args:
        source: the store, a folder or gs://BUCKET[/PATH].
        model: the model's name.
        version: the version.
        to: the folder that gets it.
        digest: `store.digest` of the version as it was promised; empty takes what is there.

    Raises:
        ConfigError: the store has no such version.
        Conflict: it is not what was promised. Nothing is left in `to`.
        Unavailable: the store cannot be read or the disk not be written.
    """
    target = to / model / str(version)
    if digest and (target / "saved_model.pb").is_file() and store.digest(target) == digest:
        return target
    read = _from_bucket(source, model, version) if source.startswith(_BUCKET) else _from_folder(Path(source), model, version)

    def fill(fresh: Path) -> None:
        read(fresh)
        _verify(fresh, model, version, source, digest)

    return store.place_version(to, model, version, fill)


def _verify(folder: Path, model: str, version: int, source: str, digest: str) -> None:
    found = store.digest(folder)
    if digest and found != digest:
        raise Conflict(
            f"{model} version {version} in {source} is not what was promised: its sha256 is {found}, not {digest}. It is not served. A published "
            "version never changes, so find out who wrote there; or, if the promise is wrong, put it right: tracks.TRACK.digest of the release."
        )


def _from_folder(source: Path, model: str, version: int) -> Callable[[Path], None]:
    folder = source / model / str(version)
    if not (folder / "saved_model.pb").is_file():
        known = ", ".join(map(str, store.versions(source, model))) or "none"
        raise ConfigError(f"{source} has no version {version} of {model}. Versions there: {known}. Publish it, or name another version.")
    return lambda fresh: store.copy_folder(folder, fresh)


def _from_bucket(source: str, model: str, version: int) -> Callable[[Path], None]:
    """A reader of the version's objects. Raises as `fetch` does."""
    from pyarrow import fs

    address, _, options = source.partition("?")
    question = f"?{options}" if options else ""
    folder = f"{address.rstrip('/')}/{model}/{version}"
    try:
        bucket, path = fs.FileSystem.from_uri(folder + question)
        objects = bucket.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except (OSError, ValueError) as error:
        raise Unavailable(f"{folder} cannot be listed: {error}. May this identity read the bucket? Then try again.") from error
    files = [item for item in objects if item.type == fs.FileType.File]
    if not any(item.path == f"{path}/saved_model.pb" for item in files):
        raise ConfigError(f"{folder} has no saved_model.pb: there is no such version. Publish it, or name another one.")
    return lambda fresh: _download(bucket, path, files, fresh)


def _download(bucket: Any, path: str, files: list[Any], fresh: Path) -> None:
    for item in files:
        target = fresh / item.path.removeprefix(f"{path}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with bucket.open_input_stream(item.path) as remote, target.open("wb") as local:
            while block := remote.read(_BUFFER):
                local.write(block)
        if target.stat().st_size != item.size:
            raise Unavailable(f"{item.path} ended after {target.stat().st_size} of {item.size} bytes. Try again.")
