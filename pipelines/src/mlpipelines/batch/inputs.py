"""Which files are scored, under which names: a Parquet file, a folder of them, or a glob.

A name is the file's path below what was named, and the name of its output file. What begins with a dot is being written by
somebody, what begins with an underscore is somebody's bookkeeping (Spark's, or ours in an output folder): neither is an input.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mlpipelines.errors import ConfigError

_GLOB = set("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One file to score."""

    name: str
    """Relative, with forward slashes; the same below the output folder."""
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an input file held when it was looked at."""

    sha256: str
    size: int
    mtime_ns: int

    def still_there(self, path: Path) -> bool:
        """Whether the file has not been written to since."""
        now = path.stat()
        return (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns)


def find_inputs(wanted: str) -> list[InputFile]:
    """The files that `wanted` means, sorted by name.

    Raises:
        ConfigError: there is none.
    """
    path = Path(wanted).expanduser()
    if path.is_file():
        return [InputFile(name=path.name, path=path.absolute())]
    if path.is_dir():
        found = _named(path, [file for file in _walk(path) if file.suffix == ".parquet"])
    elif path.is_symlink():
        raise ConfigError(f"--input {wanted} is a link that leads nowhere. Correct the link, or name the file itself.")
    else:
        base = root_of(wanted)
        pattern = str(path.absolute().relative_to(base)) if _GLOB & set(wanted) else ""
        found = _named(base, [file for file in base.glob(pattern) if not file.is_dir()]) if pattern and base.is_dir() else []
    if not found:
        raise ConfigError(f"--input {wanted}: there is no Parquet file. Name a file, a folder with *.parquet in it, or a quoted glob.")
    return found


def root_of(wanted: str) -> Path:
    """The folder below which `wanted` looks for files: itself, or what stands before a glob's first wildcard."""
    path = Path(wanted).expanduser().absolute()
    if path.is_dir() or not _GLOB & set(wanted):
        return path
    wild = next(at for at, part in enumerate(path.parts) if _GLOB & set(part))
    return Path(*path.parts[:wild])


def refuse_overlap(wanted: str, files: list[InputFile], output: Path) -> None:
    """Refuse an output folder that a later call would read as input, or in which an output file would replace its input.

    Raises:
        ConfigError: they overlap, links followed.
    """
    into, root = output.resolve(), root_of(wanted).resolve()
    if into.is_relative_to(root):
        raise ConfigError(f"--output {output} lies inside --input {wanted}: the next call would score the scores. Name a folder beside it.")
    for file in files:
        real = file.path.resolve()
        if real.is_relative_to(into) or (into / file.name).resolve() == real:
            raise ConfigError(
                f"--input {file.path} lies inside --output {output}, where its own output file would be. Name another folder."
            )


def content_of(path: Path) -> Content:
    """Hash the whole file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Content(sha256=digest, size=before.st_size, mtime_ns=before.st_mtime_ns)


def _walk(folder: Path) -> list[Path]:
    """Every file below `folder`, links to files among them; links to folders are not followed, for they may lead in a circle."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._"]
        found += [Path(place, name) for name in names]
    return found


def _named(base: Path, files: list[Path]) -> list[InputFile]:
    named = [InputFile(name=file.relative_to(base).as_posix(), path=file.absolute()) for file in files]
    return sorted((file for file in named if not any(part[0] in "._" for part in file.name.split("/"))), key=lambda file: file.name)
