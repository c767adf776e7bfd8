"""Signatures on disk, beside the spool: `<spool>/.signatures/<model>/<version>.json`, each the body of a server's `GET …/metadata`.

The gateway writes one before it asks a version anything, and the recorder reads it. A version never changes, so neither does its file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from mlserving.client.rest_client import signatures_in
from mlserving.client.signature import Signature


def is_noted(spool: Path, model: str, version: int) -> bool:
    """Whether a version's metadata lie there."""
    return _file(spool, model, version).is_file()


def note(spool: Path, model: str, version: int, metadata: bytes) -> None:
    """Write them, whole.

    Raises:
        OSError: the disk does not take them.
    """
    file = _file(spool, model, version)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        temporary.write_bytes(metadata)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def noted(spool: Path, model: str, version: int) -> Mapping[str, Signature] | None:
    """The signatures of a version; None where nothing is noted, or what is noted cannot be read."""
    try:
        return signatures_in(json.loads(_file(spool, model, version).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _file(spool: Path, model: str, version: int) -> Path:
    return spool / ".signatures" / model / f"{version}.json"
