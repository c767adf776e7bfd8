"""`make tools`: the real Feast that a test reads our exported features with, in a virtual environment of its own.

Feast and our own libraries cannot be installed together (they ask for other versions of the same ones), so `tools/feast/requirements.txt` pins it and
all that it brings, and it is installed once for all checkouts on a machine, in a folder that is named after the pins.
To move the pin: edit `tools/feast/requirements.in`, then

    .tools/bin/uv pip compile --no-config --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes \
      --no-annotate --no-header tools/feast/requirements.in -o tools/feast/requirements.txt
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import binaries

PINS = binaries.HERE / "feast" / "requirements.txt"
UV = binaries.HERE.parent / ".tools" / "bin" / "uv"


def ready() -> bool:
    """Whether it is installed."""
    return (_folder() / "complete").exists()


def python(say: Callable[[str], None] = lambda _: None) -> Path:
    """The interpreter that has Feast; installed where it is missing, which takes half a minute.

    Raises:
        binaries.ToolsMissing: it is not there and could not be installed.
    """
    folder = _folder()
    if not ready():
        with binaries.one_at_a_time(say):
            if not ready():  # another process may have installed it while we waited
                say(f"installing Feast into {folder}")
                _install(folder)
    return folder / "bin" / "python"


def _folder() -> Path:
    key = hashlib.sha256(PINS.read_bytes() + sys.version.encode() + sys.base_prefix.encode()).hexdigest()[:12]
    return binaries.cache().parent / f"feast-{key}"  # not among the programs, which CI carries from run to run


def _install(folder: Path) -> None:
    """What was begun and not ended is made anew; the file `complete` comes last."""
    uv = [str(UV), "--quiet", "--no-config"]
    commands = [
        [*uv, "venv", "--clear", "--python", sys.executable, str(folder)],
        [*uv, "pip", "sync", "--compile-bytecode", "--require-hashes", "--python", str(folder / "bin" / "python"), str(PINS)],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise binaries.ToolsMissing(f"{UV} is not there, which installs Feast. Type: make setup") from error
        if done.returncode != 0:
            raise binaries.ToolsMissing(f"Feast did not install: {' '.join(command)}\n{done.stderr[-4000:]}")
    (folder / "complete").touch()


def main() -> int:
    """Installs it where it is missing and prints its interpreter; returns 2 when that cannot be."""
    try:
        print(python(partial(print, file=sys.stderr, flush=True)))
    except binaries.ToolsMissing as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
