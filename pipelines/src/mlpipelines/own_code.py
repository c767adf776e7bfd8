"""Which Millrace this is, for cache keys and for the record."""

from __future__ import annotations

import hashlib
from pathlib import Path


def hash_millrace() -> str:
    """Hash of our own source: a step's cached result is not reused by other code."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
